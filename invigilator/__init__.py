"""The face of Invigilator: the command line, the local system, and the demo."""

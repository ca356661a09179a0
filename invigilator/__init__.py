"""The user interface of Invigilator: the command line, the system on one machine, and the demo."""

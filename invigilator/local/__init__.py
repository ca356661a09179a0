"""The system on one machine: embedded engines from wheels, and the processes of `invigilator up`."""

"""The command line: `invigilator COMMAND`.

Each group of commands has one module. Modules that take long to load are imported inside the commands that need
them, so that `--help` and `decide` start at once.
"""

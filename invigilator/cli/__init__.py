"""What a person types: `invigilator COMMAND`.

One module for each group of commands. Modules that take long to load are imported inside the commands that
need them, so that `--help` and `decide` start at once.
"""

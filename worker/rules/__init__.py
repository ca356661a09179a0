"""The domain's rules, as pure functions (docs/rules.md).

They import the standard library and the project's vocabulary only. They do no I/O and read no clock: times and
random numbers are arguments.
"""

"""Calls to the LMS and the mail server: the `ports` as Protocols, and the adapters `http`, `smtp` and `log`."""

"""The other side: what is asked of the LMS and the mail server (`ports`), and the adapters that ask it."""

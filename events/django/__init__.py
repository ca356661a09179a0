"""A transactional outbox for Django: a command is published if, and only if, the transaction commits.

- `outbox.publish` writes a command into a table, in the caller's transaction.
- `sending` publishes what was committed, oldest first, and removes it: in a thread right after the commit
  (`courier`), and in `manage.py publish_commands`.
- `config` reads the setting `INVIGILATOR`.

Add `invigilator_client.django` to `INSTALLED_APPS`, run `manage.py migrate`, and keep `manage.py publish_commands`
running: it publishes what a web process could not, because the broker was away or the process ended.
"""

from .outbox import publish

__all__ = ["publish"]

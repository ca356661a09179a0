"""The tables: the commands that wait, and the lock of those who send them."""

from django.db import models


class OutboxCommand(models.Model):  # type: ignore[misc]
    """A command that waits for being published. Its id says when it was written, and so in which order it goes.

    Where two transactions run at the same time, the later id may be committed and published first.
    """

    id = models.BigAutoField(primary_key=True)
    # Bytes, so that no encoding of a database refuses a name.
    body = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """See Django."""

        app_label = "invigilator_client"

    def __str__(self) -> str:
        return f"command {self.pk}"


class SenderLock(models.Model):  # type: ignore[misc]
    """The only row is locked by the process that sends. It makes one sender of several."""

    ROW = 1

    id = models.PositiveSmallIntegerField(primary_key=True)

    class Meta:
        """See Django."""

        app_label = "invigilator_client"

    def __str__(self) -> str:
        return "the lock of the senders"

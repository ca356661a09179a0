"""The services of the small application, which cost nothing: a call is a line in a file.

The file's path is in SERVICES_FILE. A row of the database would cost a commit instead. The benchmark counts the
lines and compares them with what the work owes.
"""

import os


class Services:
    """The credit service and the mail server."""

    def __init__(self) -> None:
        self._calls = os.open(os.environ["SERVICES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def set_credit(self, user_id: int, exam_id: str, status: str) -> None:
        """Set a learner's credit."""
        self._write(f"credit {exam_id} {status} {user_id}\n")

    def send_mail(self, user_id: int, exam_id: str, status: str) -> None:
        """Send a mail to a learner."""
        self._write(f"mail {exam_id} {status} {user_id}\n")

    def _write(self, line: str) -> None:
        os.write(self._calls, line.encode())  # in one piece, because the file is open for appending

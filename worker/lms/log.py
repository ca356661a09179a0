"""Adapters for `log:`, where no LMS or mail server is configured. They log each call, which then succeeds.

They log ids only, because a log file is no place for a username, an address or a subject line.
"""


# ruff: noqa: ARG002 - the ports name what these adapters must not log

from worker.lms.ports import CallKey, CreditRequirement, Deadline, Mail, Origin
from worker.logs import get_logger

logger = get_logger("worker.lms")


class OnlyLogged:
    """An adapter whose calls reach nobody. The tries of such calls end as `logged`."""


class LogLms(OnlyLogged):
    """Credit and instructor service that only log. They know no course names."""

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        """Log the call."""
        logger.info(
            "credit set",
            status=status,
            user=requirement.user_id,
            course=requirement.course_id,
            content=requirement.name,
            effect=key.effect_id,
        )

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        """Log the call."""
        logger.info(
            "credit removed",
            user=requirement.user_id,
            course=requirement.course_id,
            content=requirement.name,
            effect=key.effect_id,
        )

    def course_name(
        self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
    ) -> str | None:
        """Log the call and return None."""
        logger.info("credit state asked", user=user_id, course=course_id)
        return None

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        """Log the call, without the two names in it."""
        logger.info("attempt reset", course=course_id, content=content_id, effect=key.effect_id)


class LogMailer(OnlyLogged):
    """Mailer that only logs."""

    def send(self, mail: Mail, deadline: Deadline) -> None:
        """Log the call."""
        logger.info("mail not sent", effect=mail.effect_id)

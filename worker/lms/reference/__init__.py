"""A small LMS and a mail sink in memory, on free ports: for demo and tests, never for real learners."""

from worker.lms.reference.book import Call, Result
from worker.lms.reference.lms import ReferenceLms
from worker.lms.reference.mail import MailSink, ReceivedMail

__all__ = ["Call", "MailSink", "ReceivedMail", "ReferenceLms", "Result"]

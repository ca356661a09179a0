"""A small LMS and a mail sink in memory, on free ports: for demo and tests, never for real learners."""

from invigilator.demo.reference.book import Call, Result
from invigilator.demo.reference.lms import ReferenceLms
from invigilator.demo.reference.mail_sink import MailSink, ReceivedMail

__all__ = ["Call", "MailSink", "ReceivedMail", "ReferenceLms", "Result"]

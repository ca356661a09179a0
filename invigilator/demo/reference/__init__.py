"""A small LMS and a mail sink in memory, on free ports. They serve the demo and the tests, not real learners."""

from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer
from invigilator.demo.reference.lms import ReferenceLms
from invigilator.demo.reference.mail_sink import MailSink, ReceivedMail
from invigilator.demo.reference.store import Call, Result

__all__ = [
    "Call",
    "HttpRequest",
    "HttpResponse",
    "HttpServer",
    "MailSink",
    "ReceivedMail",
    "ReferenceLms",
    "Result",
]

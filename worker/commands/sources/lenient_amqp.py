"""Properties of an AMQP message that cannot be decoded must not stop its body from being read.

py-amqp decodes a message's properties, its headers among them, while it reads the frame. A time stamp in
milliseconds (a common mistake) or a table nested a thousand deep raises from there, and whoever reads the queue
next meets the same message: one sender could stop a shard for ever. There is no public hook, so this replaces
one method; the message then counts as having no properties.
"""

from typing import Any

from amqp.basic_message import Message

_load_properties = Message._load_properties


def install() -> None:
    """Make py-amqp lenient in this process. Doing it again changes nothing."""
    Message._load_properties = _leniently


def _leniently(self: Any, class_id: int, buffer: bytes, offset: int) -> int:
    try:
        return int(_load_properties(self, class_id, buffer, offset))
    except Exception:  # noqa: BLE001 - whatever the sender wrote there
        self.properties = {}
        return offset

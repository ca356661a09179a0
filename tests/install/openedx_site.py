"""Run by an environment's own Python: the part of an Open edX site that listens to the event bus, and `manage.py`.

`schemas` prints the Avro schema of each type, as `openedx-events` makes it of its own classes. Any other arguments
are those of `manage.py`. Each signal prints a line of JSON.
"""

import json
import sys
from typing import Any

import attr
import django
from django.conf import settings
from django.core.management import execute_from_command_line


def configure(redis_url: str) -> None:
    """Set what an operator sets, as docs/openedx.md says."""
    settings.configure(
        INSTALLED_APPS=["openedx_events", "edx_event_bus_redis"],
        USE_TZ=True,
        EVENT_BUS_CONSUMER="edx_event_bus_redis.RedisEventConsumer",
        EVENT_BUS_REDIS_CONNECTION_URL=redis_url,
        EVENT_BUS_TOPIC_PREFIX="dev",
    )
    django.setup()


def show(line: dict[str, Any]) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def heard(signal: Any, metadata: Any, exam_attempt: Any, **_: Any) -> None:
    """Print what a receiver of the platform gets, and look at what it looks at."""
    line = {
        "type": signal.event_type,
        "id": str(metadata.id),
        "source": metadata.source,
        "time": metadata.time.isoformat(),
        "class": type(exam_attempt).__name__,
        "course_key": [type(exam_attempt.course_key).__name__, str(exam_attempt.course_key)],
        "usage_key": [type(exam_attempt.usage_key).__name__, str(exam_attempt.usage_key)],
        "exam_type": exam_attempt.exam_type,
        "student_user": attr.asdict(exam_attempt.student_user),
        "requesting_user_id": exam_attempt.requesting_user.id,
    }
    show(line)


if __name__ == "__main__":
    redis_url, *arguments = sys.argv[1:]
    configure(redis_url)

    import openedx_events
    from openedx_events.event_bus.avro.schema import schema_from_signal
    from openedx_events.learning import signals

    exams = [
        getattr(signals, f"EXAM_ATTEMPT_{word}")
        for word in ("SUBMITTED", "VERIFIED", "REJECTED", "ERRORED", "RESET")
    ]
    if arguments == ["schemas"]:
        schemas = {one.event_type: schema_from_signal(one) for one in exams}
        show({"version": openedx_events.__version__, "schemas": schemas})
    else:
        for one in exams:
            one.connect(heard)
        execute_from_command_line(["manage.py", *arguments])

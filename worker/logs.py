"""Logging of the processes that are not Celery workers: plain lines on standard error.

Celery workers keep Celery's own format.
"""

import functools
import logging
import time

logger = logging.getLogger(__name__)

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"


def configure() -> None:
    """Send every record of level INFO and above to standard error: time in UTC, level, logger, message."""
    formatter = logging.Formatter(FORMAT, TIME_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Alembic logs two lines at INFO for each comparison of the schema.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time that this process calls it with this message. Later calls do nothing."""
    logger.warning("%s", message)

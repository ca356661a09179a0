"""How the processes of our own log: plain lines on standard error. (Celery's workers have Celery's format.)"""

import functools
import logging
import time

logger = logging.getLogger(__name__)

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"


def configure() -> None:
    """Send every record from INFO up to standard error: time in UTC, level, logger, message."""
    formatter = logging.Formatter(FORMAT, TIME_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic.runtime.migration").setLevel(
        logging.WARNING
    )  # it reports each look at the schema


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once in this process however often its cause is met."""
    logger.warning("%s", message)

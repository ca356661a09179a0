"""How the command line publishes."""

from events.publisher import Publisher
from worker.settings import Settings

SOURCE = "/invigilator/cli"


def open_publisher(settings: Settings) -> Publisher:
    """Return a publisher for the broker of resolved settings. It connects at the first publish."""
    assert settings.broker_url is not None
    return Publisher(
        settings.broker_url.get_secret_value(), source=SOURCE, assumed_shards=settings.command_shards
    )

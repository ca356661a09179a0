"""How the command line publishes."""

from events.publisher import Publisher
from worker.settings import Settings

SOURCE = "/invigilator/cli"


def open_publisher(settings: Settings) -> Publisher:
    """Return a publisher for the broker of resolved settings. It connects at the first publish."""
    assert settings.broker_url is not None
    # None where nobody said how many shards there are: the broker may know.
    shards = settings.command_shards if "command_shards" in settings.model_fields_set else None
    return Publisher(settings.broker_url.get_secret_value(), source=SOURCE, shards=shards)

"""The command line's way to the broker."""

from events.publisher import Publisher
from worker.errors import ConfigurationError
from worker.settings import Settings

SOURCE = "/invigilator/cli"


def open_publisher(settings: Settings) -> Publisher:
    """A publisher on the broker of resolved settings. Nothing connects yet.

    Raises:
        ConfigurationError: the broker's URL cannot be right.
    """
    assert settings.broker_url is not None
    # Where nobody said how many shards there are, the broker may know.
    shards = settings.command_shards if "command_shards" in settings.model_fields_set else None
    try:
        return Publisher(settings.broker_url.get_secret_value(), source=SOURCE, shards=shards)
    except ValueError as error:
        raise ConfigurationError(f"INVIGILATOR_BROKER_URL: {error}") from None

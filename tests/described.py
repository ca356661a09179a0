"""What docs/asyncapi.yaml says of a message."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
)


@cache
def as_described(channel: str, message: str) -> jsonschema.Draft7Validator:
    """Return what validates the payload of a message of a channel."""
    component = DOCUMENT["channels"][channel]["messages"][message]["$ref"].rpartition("/")[2]
    payload = DOCUMENT["components"]["messages"][component]["payload"]
    return jsonschema.Draft7Validator({**payload, "components": DOCUMENT["components"]})

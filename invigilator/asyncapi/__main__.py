"""`python -m invigilator.asyncapi [FILE]` writes the document, to docs/asyncapi.yaml when no file is named."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from events.envelope import CONTENT_TYPE
from invigilator.asyncapi.channels import channels, operations, servers
from invigilator.asyncapi.messages import messages, schemas

FILE = Path("docs/asyncapi.yaml")


def document() -> dict[str, Any]:
    """Return the document in plain JSON values."""
    members = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Invigilator",
            "version": "1",
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "description": (
                "What an LMS tells Invigilator, and what Invigilator tells those who listen. "
                "`openapi-lms.yaml` has the calls to an LMS, and `/openapi.json` of the HTTP API has its "
                "own. The queues `invigilator.effects.*` are between processes of Invigilator."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": servers(),
        "channels": channels(),
        "operations": operations(),
        "components": {"messages": messages(), "schemas": schemas()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(members))  # without enums
    return plain


def main(arguments: Sequence[str]) -> None:
    """Write the document into the file that the first argument names."""
    file = Path(arguments[0]) if arguments else FILE
    file.write_text(yaml.safe_dump(document(), sort_keys=False, width=110), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

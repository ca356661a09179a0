"""JSON Schemas of the commands, for those who publish without our Publisher.

`python -m events.schemas [FOLDER]` writes one file for each type, into docs/schemas when no folder is named.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from events.commands import COMMAND_TYPES, CommandData
from events.envelope import Envelope

FOLDER = Path("docs/schemas")


def schema(model: type[CommandData]) -> dict[str, Any]:
    """Return the JSON Schema of a whole message: the CloudEvent and the data in it.

    Parameters:
        model: the data's model, from `COMMAND_TYPES`.
    """
    envelope = Envelope.model_json_schema()
    data = model.model_json_schema()
    definitions = data.pop("$defs", {})
    properties = {**envelope["properties"], "type": {"const": model.type, "type": "string"}, "data": data}
    properties["time"]["format"] = "date-time"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": model.type,
        "description": "One CloudEvents 1.0 event in structured mode.",
        "type": "object",
        "properties": properties,
        "required": [*envelope["required"], "data"],
        "$defs": definitions,
    }


def write(folder: Path) -> None:
    """Write every schema as `<type>.json`.

    Parameters:
        folder: made when it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in COMMAND_TYPES.items():
        (folder / f"{name}.json").write_text(render(model), encoding="utf-8")


def render(model: type[CommandData]) -> str:
    """Return the schema as the text of its file.

    Parameters:
        model: the data's model, from `COMMAND_TYPES`.
    """
    return json.dumps(schema(model), indent=2) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Write every schema into the folder that the first argument names."""
    write(Path(arguments[0]) if arguments else FOLDER)


if __name__ == "__main__":
    main(sys.argv[1:])

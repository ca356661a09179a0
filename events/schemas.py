"""Writes JSON Schemas of the commands, for those who publish without our Publisher.

They are as strict as the parser, and also name the statuses. A message that fits is neither quarantined as
`not_cloudevent`, `unknown_type` or `invalid_data`, nor rejected as `unknown_status`.

`python -m events.schemas [FOLDER]` writes one file for each type, into docs/schemas when no folder is named.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands import COMMAND_TYPES, CommandData
from .envelope import Envelope

FOLDER = Path("docs/schemas")

# JSON Schema since draft 6 takes 7.0 for an integer; draft 4 does not, and neither does our parser. A schema may
# hold a part in another dialect, if that part has an id of its own.
_INTEGER = {
    "$id": "urn:invigilator:integer",
    "$schema": "http://json-schema.org/draft-04/schema#",
    "description": "A number without fraction and exponent: 7, but not 7.0.",
    "type": "integer",
}


def schema(model: type[CommandData]) -> dict[str, Any]:
    """Return the JSON Schema of a whole message: the CloudEvent with its data.

    Parameters:
        model: the data's model, from `COMMAND_TYPES`.
    """
    envelope = Envelope.model_json_schema()
    data = model.model_json_schema()
    definitions = data.pop("$defs", {})
    properties = {**envelope["properties"], "type": {"const": model.type, "type": "string"}, "data": data}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": model.type,
        "description": "One CloudEvents 1.0 event in structured mode.",
        "type": "object",
        "properties": _with_exact_integers(properties),
        "required": [*envelope["required"], "data"],
        "$defs": {**definitions, "Integer": _INTEGER},
    }


def _with_exact_integers(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_exact_integers(part) for part in node]
    if not isinstance(node, dict):
        return node
    parts = {name: _with_exact_integers(part) for name, part in node.items()}
    if parts.get("type") == "integer":
        parts.pop("type")
        parts["$ref"] = "#/$defs/Integer"
    return parts


def write(folder: Path) -> None:
    """Write every schema as `<type>.json`.

    Parameters:
        folder: it is made when it does not exist.
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

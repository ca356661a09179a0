"""What the OpenAPI document says beyond what FastAPI finds out by itself: bodies, errors, and the way in."""

from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from events.commands import COMMAND_TYPES
from events.schemas import schema
from invigilator.web.problems import MEDIA_TYPE, Problem

EVENT_REF = {"$ref": "#/components/schemas/Command"}
BATCH_REF = {"$ref": "#/components/schemas/Commands"}
_FILLED_IN = ("specversion", "id", "source")
_SCHEMES = {"token": {"type": "http", "scheme": "bearer"}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's `responses` says of its errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "A problem.", "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Have an application describe itself at /openapi.json."""

    @cache
    def document() -> dict[str, Any]:
        return _document(app)

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for name, model in COMMAND_TYPES.items():
        schemas[name] = _as_component(schema(model), name)
    schemas["Command"] = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in COMMAND_TYPES]}
    schemas["Commands"] = {"type": "array", "items": EVENT_REF, "minItems": 1, "maxItems": 100}
    components["securitySchemes"] = _SCHEMES
    for path, calls in found["paths"].items():
        if path.startswith("/v1/"):
            for call in calls.values():
                # FastAPI tells of its own answer to a parameter that is wrong, which ours replaces.
                if "HTTPValidationError" in str(call["responses"].get("422", "")):
                    del call["responses"]["422"]
                call["security"] = [{"token": []}, {}]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return found


def _as_component(whole: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a command's schema as a part of a document: with its own definitions, and what may be left out."""
    place = f"#/components/schemas/{name}/$defs/"
    moved: dict[str, Any] = _with_refs(whole, place)
    moved.pop("$schema")
    # OpenAPI's tools do not read a piece in another dialect. The parser refuses 7.0, which this lets pass.
    moved["$defs"]["Integer"] = {"type": "integer"}
    return moved | {"required": sorted(set(moved["required"]) - set(_FILLED_IN))}


def _with_refs(node: Any, place: str) -> Any:
    if isinstance(node, list):
        return [_with_refs(part, place) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        key: part.replace("#/$defs/", place) if key == "$ref" else _with_refs(part, place)
        for key, part in node.items()
    }

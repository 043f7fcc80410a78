"""The description of the server's API, and its page, which loads nothing from elsewhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from synthdetect import __version__
from synthdetect.page.about import About
from synthdetect.serving.limits import PATHS

_IMAGE = {"type": "string", "format": "byte", "description": "An image's file as base64 text."}
_SHAPES: dict[str, Any] = {
    "inputs": {"image": ["iVBORw0KGgo…"]},
    "instances": [{"image": "iVBORw0KGgo…"}],
    "dataframe_records": [{"image": "iVBORw0KGgo…"}],
    "dataframe_split": {"columns": ["image"], "data": [["iVBORw0KGgo…"]]},
}
_ANSWER = {
    "type": "object",
    "properties": {
        "predictions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "probability": {"type": "number", "description": "Of synthetic, 0 to 1."},
                    "label": {"type": "string", "enum": ["real", "synthetic", "unsure"]},
                    "threshold": {
                        "type": "number",
                        "description": "From which on it is synthetic.",
                    },
                    "attributed": {
                        "type": "string",
                        "description": "The generator, unknown, or real; only of detectors "
                        "that attribute images.",
                    },
                },
            },
        }
    },
}
_REFUSAL = {
    "description": "The request is refused; the message says why, and of several images it names "
    "the row, counted from 0.",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"message": {"type": "string"}}},
            "example": {"message": "row 0: not an image of a known format."},
        }
    },
}
_PROTOCOL = {
    "/invocations": "Score images",
    "/ping": "Whether the server is ready",
    "/health": "Whether the server is ready",
    "/version": "The version of MLflow",
}


def describe(app: FastAPI, known: About) -> None:
    """Let the application describe itself by `/openapi.json`, MLflow's routes included.

    Args:
        app: The application, with all its routes.
        known: The card of the detector that it serves.
    """
    app.title, app.version = f"synthdetect: {known.name}", __version__
    app.description = (
        "Scores images by the probability that they are synthetic. One image has at most "
        f"{known.max_mib} MiB and {known.max_pixels:,} pixels."
    )
    schema = app.openapi()
    for path in PATHS:
        for operation in schema["paths"][path].values():
            operation |= {"summary": _PROTOCOL[path], "tags": ["MLflow's protocol"]}
            operation.pop("description", None)
    _describe_scoring(schema["paths"]["/invocations"]["post"])
    schema["paths"]["/inspect"]["post"]["responses"]["400"] = _REFUSAL
    app.openapi = lambda: schema  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _describe_scoring(operation: dict[str, Any]) -> None:
    operation["description"] = (
        "Scores the images of a request, given in any of MLflow's four shapes. The parameter "
        "threshold overrides the detector's own."
    )
    images = {
        "inputs": {"type": "object", "properties": {"image": {"type": "array", "items": _IMAGE}}}
    }
    shapes = {name: images.get(name, {}) for name in _SHAPES}
    parameters = {"type": "object", "properties": {"threshold": {"type": "number"}}}
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {**shapes, "params": parameters}},
                "examples": {name: {"value": {name: value}} for name, value in _SHAPES.items()},
            }
        },
    }
    scored = {"probability": 0.31, "label": "real", "threshold": 0.6256}
    operation["responses"] = {
        "200": {
            "description": "An answer for each image, in the order of the request.",
            "content": {
                "application/json": {"schema": _ANSWER, "example": {"predictions": [scored]}}
            },
        },
        "400": _REFUSAL,
    }


@dataclass(frozen=True)
class _Field:
    """A field of a body, as the page lists it."""

    name: str
    kind: str
    text: str


def docs_page(schema: Mapping[str, Any]) -> str:
    """Return the description of the API as a page of HTML, without any script."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "text": operation.get("description", ""),
            "needed": operation.get("requestBody", {}).get("description", ""),
            "request": list(_bodies(operation.get("requestBody"), schema)),
            "answers": [
                {"status": status, "text": answer["description"],
                 "bodies": list(_bodies(answer, schema))}
                for status, answer in operation["responses"].items()
            ],
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]  # fmt: skip
    return environment.get_template("docs.html.jinja").render(
        info=schema["info"], operations=operations
    )


def _bodies(part: Mapping[str, Any] | None, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield media type, fields and examples of each body that a request or an answer may have."""
    for kind, body in (part or {}).get("content", {}).items():
        values = [example["value"] for example in body.get("examples", {}).values()]
        values += [body["example"]] if "example" in body else []
        yield {
            "kind": kind,
            "fields": list(_fields(body.get("schema", {}), schema)),
            "examples": [json.dumps(value, ensure_ascii=False) for value in values],
        }


def _fields(
    part: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = ""
) -> Iterator[_Field]:
    """Yield the fields of a body, those of nested ones with a dotted name."""
    part = _resolved(part, schema)
    if part.get("type") == "array":
        yield from _fields(part["items"], schema, f"{prefix}[]")
    for name, inner in part.get("properties", {}).items():
        whole = _resolved(inner, schema)
        dotted = f"{prefix}.{name}" if prefix else name
        yield _Field(dotted, _kind(whole, schema), whole.get("description", ""))
        yield from _fields(whole, schema, dotted)


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        part = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return part


def _kind(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_kind(_resolved(option, schema), schema) for option in part["anyOf"])
    if "enum" in part:
        return " or ".join(map(str, part["enum"]))
    kind = str(part.get("type", "any"))
    return (
        f"array of {_kind(_resolved(part['items'], schema), schema)}" if kind == "array" else kind
    )

"""The admin API as people read it, made from the OpenAPI document that the server serves."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedit_server.dashboard.views.model import View


class FieldLine(View):
    """One field of a model, or one parameter."""

    name: str
    type: str
    required: bool
    description: str


class OperationLine(View):
    """One thing that can be asked."""

    method: str
    path: str
    summary: str
    parameters: tuple[FieldLine, ...]
    body: str
    reply: str
    refusals: tuple[str, ...]


class ModelLine(View):
    """One model of bodies and replies."""

    name: str
    description: str
    fields: tuple[FieldLine, ...]


class ApiPage(View):
    """The whole API."""

    title: str
    version: str
    operations: tuple[OperationLine, ...]
    models: tuple[ModelLine, ...]


def api_page(document: Mapping[str, Any]) -> ApiPage:
    """Return what an OpenAPI 3.1 document says."""
    schemas = document["components"]["schemas"]
    return ApiPage(
        title=document["info"]["title"],
        version=document["info"]["version"],
        operations=tuple(_operations(document["paths"])),
        models=tuple(_model(name, schema) for name, schema in sorted(schemas.items())),
    )


def _operations(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[OperationLine]:
    for path, methods in paths.items():
        for method, said in methods.items():
            responses = said.get("responses", {})
            done: Mapping[str, Any] = next((told for status, told in responses.items() if status.startswith("2")), {})
            yield OperationLine(
                method=method.upper(),
                path=path,
                summary=said.get("summary", ""),
                parameters=tuple(_field(one["name"], one.get("schema", {}), one) for one in said.get("parameters", ())),
                body=_content(said.get("requestBody", {})),
                reply=_content(done),
                refusals=tuple(status for status in responses if not status.startswith("2")),
            )


def _content(told: Mapping[str, Any]) -> str:
    for media, content in told.get("content", {}).items():
        name = type_of(content.get("schema", {}))
        return name if media == "application/json" else media
    return ""


def _model(name: str, schema: Mapping[str, Any]) -> ModelLine:
    required = set(schema.get("required", ()))
    fields = schema.get("properties", {})
    return ModelLine(
        name=name,
        description=schema.get("description", ""),
        fields=tuple(_field(key, one, {"required": key in required}) for key, one in fields.items()),
    )


def _field(name: str, schema: Mapping[str, Any], said: Mapping[str, Any]) -> FieldLine:
    description = said.get("description") or schema.get("description", "")
    return FieldLine(name=name, type=type_of(schema), required=bool(said.get("required")), description=str(description))


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " | ".join(dict.fromkeys(map(type_of, schema[word])))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(kind)

"""The REST side of the API as OpenAPI 3.1, from the annotations google.api.http. Pure.

Covers what our protos use: verbs with `body`, path variables, HttpBody uploads, server streams.
https://spec.openapis.org/oas/v3.1.0 and protobuf's JSON mapping.
"""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from fleet.comments import Comments, read_comments

Json = dict[str, Any]
Field = pb.FieldDescriptorProto

PACKAGE = "speechemotion.v1"
HTTP_BODY = ".google.api.HttpBody"
SCALARS: dict[int, Json] = {
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_INT64: {"type": "string", "format": "int64"},
    Field.TYPE_UINT64: {"type": "string", "format": "uint64"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    Field.TYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
WELL_KNOWN: dict[str, Json] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "examples": ["1.5s"]},
    ".google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
    },
    HTTP_BODY: {"type": "string", "contentMediaType": "application/octet-stream"},
}
REFUSALS = {
    "400": "Not audio, out of range, or not as this document says (INVALID_ARGUMENT).",
    "401": "No key, or a wrong one, where keys are asked for (UNAUTHENTICATED).",
    "403": "The key or token does not allow this call (PERMISSION_DENIED).",
    "404": "There is no such model or path (NOT_FOUND).",
    "413": "The body is larger than the gateway takes.",
    "429": "Busy, or over the quota (RESOURCE_EXHAUSTED); come back after Retry-After.",
    "500": "A fault of the server (INTERNAL); its message has an id that is in the log.",
    "502": "A replica broke off while it answered (UNAVAILABLE); try again.",
    "503": "No replica is ready (UNAVAILABLE).",
    "504": "The deadline passed (DEADLINE_EXCEEDED).",
}


def to_openapi(files: FileDescriptorSet) -> Json:
    """The document, with every message that a path needs."""
    generator = _Generator(files)
    paths: Json = {}
    for path, verb, operation in generator.operations():
        paths.setdefault(path, {})[verb] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Speech Emotion Server",
            "version": version("speech-emotion-server"),
            "description": "The same API as gRPC. Names may be in snake_case or camelCase.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": generator.schemas(), "responses": _refusals()},
    }


class _Generator:
    def __init__(self, files: FileDescriptorSet) -> None:
        self._comments: Comments = {}
        self._messages: dict[str, pb.DescriptorProto] = {}
        self._enums: dict[str, pb.EnumDescriptorProto] = {}
        self._services: list[tuple[str, pb.ServiceDescriptorProto]] = []
        self._used: dict[str, Json] = {}
        for file in files.file:
            self._comments |= read_comments(file)
            self._register(f".{file.package}", file.message_type, file.enum_type)
            self._services += [(f".{file.package}.{one.name}", one) for one in file.service]

    def _register(self, scope: str, messages: Any, enums: Any) -> None:
        for enum in enums:
            self._enums[f"{scope}.{enum.name}"] = enum
        for message in messages:
            self._messages[f"{scope}.{message.name}"] = message
            self._register(f"{scope}.{message.name}", message.nested_type, message.enum_type)

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        for name, service in self._services:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    rule = method.options.Extensions[annotations_pb2.http]
                    yield self._operation(f"{name}.{method.name}", method, rule)

    def schemas(self) -> Json:
        self._schema_of(".google.rpc.Status")
        return dict(sorted(self._used.items()))

    def _operation(
        self, name: str, method: pb.MethodDescriptorProto, rule: http_pb2.HttpRule
    ) -> tuple[str, str, Json]:
        verb = str(rule.WhichOneof("pattern"))
        path = getattr(rule, verb)
        in_path = re.findall(r"\{(\w+)(?:=([^}]*))?\}", path)
        operation: Json = {"operationId": method.name, "tags": [name.split(".")[-2]]}
        comment = self._comments.get(name, "")
        if comment:
            operation["summary"] = comment
        parameters = self._parameters(method.input_type, rule, dict(in_path))
        if parameters:
            operation["parameters"] = parameters
        if rule.body:
            operation["requestBody"] = self._body(method, rule.body)
        operation["responses"] = self._responses(method)
        return re.sub(r"\{(\w+)=[^}]*\}", r"{\1}", path), verb, operation

    def _body(self, method: pb.MethodDescriptorProto, body: str) -> Json:
        if body == "*":
            schema = self._schema_of(method.input_type)
            if method.client_streaming:
                schema = {"type": "array", "items": schema}
            return {"required": True, "content": {"application/json": {"schema": schema}}}
        field = next(one for one in self._messages[method.input_type].field if one.name == body)
        assert field.type_name == HTTP_BODY, "our only partial bodies are uploads"
        return {"required": True, "content": {"*/*": {"schema": WELL_KNOWN[HTTP_BODY]}}}

    def _parameters(
        self, message: str, rule: http_pb2.HttpRule, in_path: dict[str, str]
    ) -> list[Json]:
        return [
            self._parameter(name, field, in_path)
            for name, field in self._leaves(message)
            if name in in_path or (rule.body != "*" and name.split(".")[0] != rule.body)
        ]

    def _parameter(self, name: str, field: Field, in_path: dict[str, str]) -> Json:
        place = "path" if name in in_path else "query"
        parameter: Json = {"name": name, "in": place, "schema": self._field_type(field)}
        if place == "path":
            parameter["required"] = True
            parameter["description"] = f"Of the form {in_path[name]}; the slash is not escaped."
        return parameter

    def _leaves(self, message: str, prefix: str = "") -> Iterator[tuple[str, Field]]:
        """Fields that a query parameter can set, with their dotted names."""
        for field in self._messages[message].field:
            name = prefix + field.name
            if field.type != Field.TYPE_MESSAGE:
                yield name, field
            elif field.type_name not in WELL_KNOWN:
                yield from self._leaves(field.type_name, f"{name}.")

    def _responses(self, method: pb.MethodDescriptorProto) -> Json:
        schema = self._schema_of(method.output_type)
        kind = "application/x-ndjson" if method.server_streaming else "application/json"
        text = "One event a line." if method.server_streaming else "The answer."
        good = {"description": text, "content": {kind: {"schema": schema}}}
        refusals = {code: {"$ref": f"#/components/responses/{code}"} for code in REFUSALS}
        return {"200": good, **refusals}

    def _schema_of(self, message: str) -> Json:
        """A reference to the message's schema, which it makes if nobody did."""
        name = message.rpartition(".")[2] if not message.startswith(f".{PACKAGE}.") else ""
        name = name or message.removeprefix(f".{PACKAGE}.")
        if name not in self._used:
            self._used[name] = {}
            self._used[name] = self._object(message)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: str) -> Json:
        fields = self._messages[message].field
        made: Json = {"type": "object"}
        comment = self._comments.get(message)
        if comment:
            made["description"] = comment
        made["properties"] = {one.name: self._described(message, one) for one in fields}
        made["additionalProperties"] = False
        return made

    def _described(self, message: str, field: Field) -> Json:
        schema = self._field_type(field)
        comment = self._comments.get(f"{message}.{field.name}")
        return {**schema, "description": comment} if comment else schema

    def _field_type(self, field: Field) -> Json:
        entry = self._messages.get(field.type_name)
        if entry is not None and entry.options.map_entry:
            value = next(one for one in entry.field if one.name == "value")
            return {"type": "object", "additionalProperties": self._field_type(value)}
        one = self._single_type(field)
        return {"type": "array", "items": one} if field.label == Field.LABEL_REPEATED else one

    def _single_type(self, field: Field) -> Json:
        if field.type == Field.TYPE_ENUM:
            return {"type": "string", "enum": [v.name for v in self._enums[field.type_name].value]}
        if field.type != Field.TYPE_MESSAGE:
            return SCALARS[field.type]
        return WELL_KNOWN.get(field.type_name) or self._schema_of(field.type_name)


def _refusals() -> Json:
    schema = {"$ref": "#/components/schemas/Status"}
    content = {"application/json": {"schema": schema}}
    return {code: {"description": text, "content": content} for code, text in REFUSALS.items()}

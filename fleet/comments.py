"""Full name of a proto element -> the comment above it. Pure.

Paths into a file descriptor: google/protobuf/descriptor.proto, SourceCodeInfo.Location.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorProto

Comments: TypeAlias = dict[str, str]

# (field number in the parent's descriptor, attribute) of what has a name and comments.
IN_FILE = ((4, "message_type"), (5, "enum_type"), (6, "service"))
IN_MESSAGE = ((2, "field"), (3, "nested_type"), (4, "enum_type"))
IN_SERVICE = ((2, "method"),)


def read_comments(file: FileDescriptorProto) -> Comments:
    """Of messages, fields, enums, services and methods; without linter directives."""
    texts = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
    found = {}
    for path, name in _named(file, f".{file.package}", (), IN_FILE):
        text = _clean(texts.get(path, ""))
        if text:
            found[name] = text
    return found


def _named(
    parent: Any, scope: str, at: tuple[int, ...], kinds: Sequence[tuple[int, str]]
) -> Iterator[tuple[tuple[int, ...], str]]:
    for number, attribute in kinds:
        for index, child in enumerate(getattr(parent, attribute)):
            path, name = (*at, number, index), f"{scope}.{child.name}"
            yield path, name
            inner = {"message_type": IN_MESSAGE, "nested_type": IN_MESSAGE, "service": IN_SERVICE}
            yield from _named(child, name, path, inner.get(attribute, ()))


def _clean(comment: str) -> str:
    lines = (line.strip() for line in comment.splitlines())
    return " ".join(line for line in lines if line and not line.startswith("buf:lint:"))

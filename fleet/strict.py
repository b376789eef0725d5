"""A Lua filter that refuses JSON bodies with names that the API does not have. Pure."""

from collections.abc import Iterable, Iterator

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

SOURCE = """\
-- Made from the protos by `make api`. Envoy's transcoder ignores names that it does not know; a
-- caller who misspells one should hear of it. Broken JSON is left to the transcoder.
-- Path -> every name that its body can have.
local known = {
%s}

-- Where the string that opens before `from` ends: the next quote that no backslash escapes.
local function closing_quote(text, from)
  local at = from
  while true do
    at = text:find('"', at, true)
    if not at then return nil end
    local slashes = 0
    while text:byte(at - 1 - slashes) == 92 do slashes = slashes + 1 end
    if slashes %% 2 == 0 then return at end
    at = at + 1
  end
end

-- The first name (a string before a colon) that is not in `names`.
local function unknown_name(names, text)
  local at = 1
  while true do
    local opening = text:find('"', at, true)
    local closing = opening and closing_quote(text, opening + 1)
    if not closing then return nil end
    if text:find("^%%s*:", closing + 1) then
      local name = text:sub(opening + 1, closing - 1)
      if not names[name] then return name end
    end
    at = closing + 1
  end
end

function envoy_on_request(handle)
  local names = known[handle:headers():get(":path"):match("^[^?]*")]
  local body = names and handle:body()
  if not body then return end
  local name = unknown_name(names, body:getBytes(0, body:length()))
  if name then
    local shown = name:gsub("[^%%w_.-]", "?"):sub(1, 64)
    handle:respond({[":status"] = "400"}, "There is no field named " .. shown .. ".")
  end
end
"""


def to_lua(files: FileDescriptorSet) -> str:
    """Both spellings of every field that can be in the body of each path.

    A name at the wrong depth is not noticed.
    """
    messages = {
        f".{file.package}.{name}": message
        for file in files.file
        for name, message in _with_nested(file.message_type)
    }
    tables = []
    for path, message in sorted(_bodies(files)):
        names = sorted(set(_names(message, messages, set())))
        entries = "".join(f'    ["{name}"] = true,\n' for name in names)
        tables.append(f'  ["{path}"] = {{\n{entries}  }},\n')
    return SOURCE % "".join(tables)


def _bodies(files: FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """REST paths whose body is a whole message, with the message's full name."""
    for file in files.file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                if rule.body == "*":
                    yield rule.post, method.input_type


def _with_nested(
    messages: Iterable[DescriptorProto], scope: str = ""
) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        yield scope + message.name, message
        yield from _with_nested(message.nested_type, f"{scope}{message.name}.")


def _names(name: str, messages: dict[str, DescriptorProto], seen: set[str]) -> Iterator[str]:
    """Of the fields of a message and of the messages in it."""
    if name in seen:
        return
    seen.add(name)
    for field in messages[name].field:
        yield field.name
        yield field.json_name
        if field.type == field.TYPE_MESSAGE:
            yield from _names(field.type_name, messages, seen)

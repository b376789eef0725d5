"""A Lua filter that refuses JSON bodies with names that the API does not have. Pure."""

from collections.abc import Iterable, Iterator

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

SOURCE = """\
-- Made from the protos by `make api`. Envoy's transcoder ignores names that it does not know; a
-- caller who misspells one should hear of it. Broken JSON is left to the transcoder.
-- Message -> the names that it can have, each with the message that is its value, or "".
local messages = {
%s}
-- Path -> the message that is its body; of a stream, each element of it.
local bodies = {
%s}
local DEEPEST = 100 -- the transcoder refuses more

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

-- The first name (a string before a colon) that its object cannot have.
local function unknown_name(body, text)
  local inside, value = nil, body -- names of the object around `at`; message of the last name
  local outer, depth, at = {}, 0, 1
  while true do
    at = text:find('["{}]', at)
    if not at then return nil end
    local what = text:byte(at)
    if what == 123 then -- {
      if depth == DEEPEST then return nil end
      depth = depth + 1
      outer[depth] = {inside, value}
      inside, value = messages[value], nil
    elseif what == 125 then -- }
      if depth == 0 then return nil end
      inside, value = outer[depth][1], outer[depth][2] -- an array may have more of the same
      depth = depth - 1
    else
      local closing = closing_quote(text, at + 1)
      if not closing then return nil end
      if text:find("^%%s*:", closing + 1) then
        local name = text:sub(at + 1, closing - 1)
        if inside and not inside[name] then return name end
        value = inside and inside[name]
      end
      at = closing
    end
    at = at + 1
  end
end

function envoy_on_request(handle)
  local root = bodies[handle:headers():get(":path"):match("^[^?]*")]
  local body = root and handle:body()
  if not body then return end
  local name = unknown_name(root, body:getBytes(0, body:length()))
  if name then
    local shown = name:gsub("[^%%w_.-]", "?"):sub(1, 64)
    handle:respond({[":status"] = "400"}, "There is no field named " .. shown .. " here.")
  end
end
"""


def to_lua(files: FileDescriptorSet) -> str:
    """Both spellings of every field of the messages that can be in a body."""
    messages = {
        f".{file.package}.{name}": message
        for file in files.file
        for name, message in _with_nested(file.message_type)
    }
    bodies = sorted(_bodies(files))
    reached: dict[str, None] = {}
    for _, root in bodies:
        _reach(root, messages, reached)
    return SOURCE % (
        "".join(_table(name, messages[name]) for name in sorted(reached)),
        "".join(f'  ["{path}"] = "{message}",\n' for path, message in bodies),
    )


def _bodies(files: FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """REST paths whose body is a whole message, with the message's full name."""
    for file in files.file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                if rule.body == "*":
                    yield rule.post, method.input_type


def _reach(name: str, messages: dict[str, DescriptorProto], reached: dict[str, None]) -> None:
    """Adds a message and all that can be in it."""
    if name not in reached:
        reached[name] = None
        for field in messages[name].field:
            if field.type == field.TYPE_MESSAGE:
                _reach(field.type_name, messages, reached)


def _table(name: str, message: DescriptorProto) -> str:
    assert not message.options.map_entry, "names in a map are not ours to choose"
    values = {
        spelling: field.type_name if field.type == field.TYPE_MESSAGE else ""
        for field in message.field
        for spelling in (field.name, field.json_name)
    }
    entries = "".join(f'    ["{key}"] = "{values[key]}",\n' for key in sorted(values))
    return f'  ["{name}"] = {{\n{entries}  }},\n'


def _with_nested(
    messages: Iterable[DescriptorProto], scope: str = ""
) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        yield scope + message.name, message
        yield from _with_nested(message.nested_type, f"{scope}{message.name}.")

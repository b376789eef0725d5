"""`python -m fleet.api`: what the doors need to know of the API, made from the protos.

envoy/api.binpb for the transcoder, envoy/strict.lua for what it lets pass, envoy/openapi.json for
people and their tools.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from fleet.openapi import to_openapi
from fleet.strict import to_lua

PROTOS = Path("protos")
FOLDER = Path("envoy")
ERRORS = "google/rpc/error_details.proto"  # only with it can the transcoder print error details


def compile_protos() -> FileDescriptorSet:
    """Every message of the API, its imports and the error details, with comments."""
    google = importlib.util.find_spec("google.rpc")
    assert google
    assert google.submodule_search_locations
    include = Path(next(iter(google.submodule_search_locations))).parents[1]
    files = [str(file.relative_to(PROTOS)) for file in sorted(PROTOS.rglob("*.proto"))]
    with tempfile.NamedTemporaryFile() as output:
        arguments = [
            "protoc",
            f"-I{PROTOS}",
            f"-I{include}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={output.name}",
        ]
        if protoc.main([*arguments, *files, ERRORS]):
            raise SystemExit("fleet.api: protoc failed")
        return FileDescriptorSet.FromString(Path(output.name).read_bytes())


def without_comments(files: FileDescriptorSet) -> FileDescriptorSet:
    """A smaller copy, the same for the same API whatever its comments say."""
    copy = FileDescriptorSet()
    copy.CopyFrom(files)
    for file in copy.file:
        file.ClearField("source_code_info")
    return copy


def main(folder: Path = FOLDER) -> None:
    files = compile_protos()
    (folder / "api.binpb").write_bytes(
        without_comments(files).SerializeToString(deterministic=True)
    )
    (folder / "strict.lua").write_text(to_lua(files))
    (folder / "openapi.json").write_text(json.dumps(to_openapi(files), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)

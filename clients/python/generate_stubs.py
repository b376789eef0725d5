"""Generates the client's own copy of the gRPC stubs from the protos; needs grpcio-tools.

    python clients/python/generate_stubs.py clients/python/speech_emotion_client/v1

Knows nothing of the server's copy: only the imports differ, the descriptors are the same, so that
both can be loaded into one process.
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parents[2] / "protos"
PACKAGE = "speechemotion/v1"
INIT = '"""Generated from protos/speechemotion/v1 by generate_stubs.py; do not edit."""\n'
SOURCE_IMPORT = re.compile(r"^from speechemotion\.v1 import", re.MULTILINE)
CLIENT_IMPORT = "from speech_emotion_client.v1 import"


def google_protos() -> Path:
    """The folder that holds google/api and google/rpc as text (googleapis-common-protos)."""
    return Path(str(files("google.rpc").joinpath("status.proto"))).parents[2]


def compile_protos(out: Path) -> None:
    """Runs protoc with PROTOS as the root, which keeps the descriptors' file names unchanged."""
    sources = sorted(str(path) for path in (PROTOS / PACKAGE).glob("*.proto"))
    includes = [PROTOS, google_protos(), Path(str(files("grpc_tools").joinpath("_proto")))]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *(f"-I{path}" for path in includes), *outputs, *sources]) != 0:
        raise SystemExit("protoc failed")


def generate(out: Path) -> None:
    """Replaces the stubs in `out`; those of protos that are gone are removed."""
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(Path(scratch))
        fresh = {
            path.name: SOURCE_IMPORT.sub(CLIENT_IMPORT, path.read_text())
            for path in Path(scratch, PACKAGE).iterdir()
        }
    out.mkdir(parents=True, exist_ok=True)
    for stale in set(out.glob("*_pb2*.py*")) - {out / name for name in fresh}:
        stale.unlink()
    for name, text in (fresh | {"__init__.py": INIT}).items():
        (out / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: generate_stubs.py OUT_DIR")
    generate(Path(sys.argv[1]))

"""Every peer: what to install, how to start it, how to ask it."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers import null_model
from benchmarks.servers import expected
from benchmarks.traffic import Target

OIP = "/inference.GRPCInferenceService/ModelInfer"
DEBIAN = "/usr/bin/python3.11"  # Triton's stub does not start under a Python built by hand


@dataclass(frozen=True, slots=True)
class Peer:
    """One server. `packages` go into a virtual environment that is made on demand."""

    name: str
    script: str
    packages: tuple[str, ...]
    path: str
    answer: str  # "floats", "json", "oip"
    python: str = ""
    settle: float = 5.0  # s, from an open port to a server that answers
    home: str = ""  # shares the environment of this peer
    needs: str = ""  # a program


TRITON = ("nvidia-pytriton==0.7.0", "numpy")
PEERS = (
    Peer("triton", "serve_triton.py", TRITON, OIP, "oip", DEBIAN, 6, "pytriton"),
    Peer("mosec", "serve_mosec.py", ("mosec==0.9.8", "numpy"), "/inference", "floats"),
    Peer("pytriton", "serve_pytriton.py", TRITON, OIP, "oip", DEBIAN, 8),
    Peer("kserve", "serve_kserve.py", ("kserve==0.21.0", "numpy"), OIP, "oip", settle=4),
    Peer("litserve", "serve_litserve.py", ("litserve==0.2.19", "numpy"), "/predict", "json"),
    Peer(
        "torchserve", "serve_torchserve.py",
        (
            "torch==2.13.0", "torchserve==0.12.0", "torch-model-archiver==0.12.0", "pyyaml",
            "psutil", "requests", "packaging", "captum", "nvgpu", "pynvml", "numpy",
        ),
        "/predictions/null", "floats", settle=10, needs="java",
    ),
    Peer("bentoml", "serve_bentoml.py", ("bentoml==1.4.39", "numpy"), "/inference", "json"),
    Peer("ray", "serve_ray.py", ("ray[serve]==2.60.0", "numpy"), "/", "floats"),
)  # fmt: skip


def target(peer: Peer, port: int, size: int) -> Target:
    """The same bodies for all, in the envelope that the peer wants."""
    bodies = null_model.bodies(size)
    return Target(
        address=f"127.0.0.1:{port}",
        path=peer.path,
        bodies=[_oip(one) if peer.answer == "oip" else one for one in bodies],
        expected=expected(bodies),
        read={"oip": _read_oip, "json": _read_json, "floats": _read_floats}[peer.answer],
        http=peer.answer != "oip",
    )


def _read_floats(answer: bytes) -> Sequence[float]:
    return struct.unpack(f"<{len(answer) // 4}f", answer)


def _read_json(answer: bytes) -> Sequence[float]:
    said = json.loads(answer)
    scores: list[float] = said["p"] if isinstance(said, dict) else said
    return scores


def _read_oip(answer: bytes) -> Sequence[float]:
    # raw_output_contents is the last field, and nine floats are its 36 bytes.
    return _read_floats(answer[-36:])


def _oip(pcm: bytes) -> bytes:
    """inference.ModelInferRequest with raw_input_contents, by hand: no stub is needed."""
    shape = _varint(1) + _varint(len(pcm) // 2)
    tensor = _field(1, b"pcm") + _field(2, b"INT16") + _field(3, shape)
    return _field(1, b"null") + _field(5, tensor) + _field(7, pcm)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""The one door to the engines: settings in, a loaded engine out; imports only what it needs."""

from server.engine import CannotLoad, Engine, checkpoint, devices
from server.engine.checkpoint import Checkpoint
from server.engine.fake import FakeEngine
from server.engine.precision import choose

ENGINES = ("native", "funasr", "fake")


def device_names(wanted: str, *, engine: str = "native") -> list[str]:
    """One for each engine to load. `wanted`: auto, cpu, or a list such as "cuda:0,cuda:1".

    Raises `CannotLoad`.
    """
    return ["cpu"] if engine == "fake" else devices.choose(wanted)


def load(
    source: str,
    *,
    engine: str = "native",
    device: str = "cpu",
    precision: str = "auto",
    threads: int = 0,
    memory_fraction: float = 1.0,
) -> Engine:
    """Loads `source` into an engine; blocks for as long as reading the weights takes.

    `source`: "demo" (bundled), a FunASR checkpoint folder, or a ModelScope id such as
    "iic/emotion2vec_plus_large". `engine`: one of `ENGINES`; "fake" needs no source. `device`:
    cpu or cuda:N. `precision`: auto, float32, float16, bfloat16, int8. `threads`: of the CPU, 0
    for one a core. `memory_fraction`: of a GPU's memory.

    Raises `CannotLoad`, of which `CheckpointError` is a kind.
    """
    if engine not in ENGINES:
        raise CannotLoad(f"engine {engine!r} is unknown; it is one of {ENGINES}")
    if engine == "fake":
        return FakeEngine()
    if engine == "funasr" and precision not in ("auto", "float32"):
        raise CannotLoad(f"engine 'funasr' computes in float32 only, not in {precision!r}")
    found = checkpoint.find(source)
    if engine == "funasr":
        from server.engine.funasr_engine import FunasrEngine

        return FunasrEngine(found, device=device, threads=threads)
    if device != "cpu":
        return _on_gpu(found, device, choose(precision, "cuda"), memory_fraction)
    from server.engine.native import NativeEngine

    return NativeEngine(found, precision=precision, threads=threads)


def _on_gpu(found: Checkpoint, name: str, precision: str, memory_fraction: float) -> Engine:
    import torch

    from server.engine import native
    from server.engine.batched import BatchEngine
    from server.engine.cuda import CudaDevice

    device = CudaDevice(torch.device(name), memory_fraction)
    with device.errors(), device.computing():
        network, model = native.load(found, device.name, precision)
    return BatchEngine(network, model, device, normalised=found.architecture.normalise)

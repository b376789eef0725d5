"""The one door to the engines: settings in, a loaded engine out; imports only what it needs."""

from server.engine import CannotLoad, Engine, checkpoint
from server.engine.fake import FakeEngine

ENGINES = ("native", "funasr", "fake")


def load(
    source: str,
    *,
    engine: str = "native",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> Engine:
    """Loads `source` into an engine; blocks for as long as reading the weights takes.

    `source`: "demo" (bundled), a FunASR checkpoint folder, or a ModelScope id such as
    "iic/emotion2vec_plus_large". `engine`: one of `ENGINES`; "fake" needs no source. `device`:
    auto, cpu, cuda, cuda:N. `precision`: auto, float32, float16, bfloat16. `threads`: of the
    CPU, 0 for one a core.

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
    from server.engine.native import NativeEngine

    return NativeEngine(found, device=device, precision=precision, threads=threads)

"""Which number formats this machine computes at speed; refuses the others instead of crawling."""

from pathlib import Path

from server.engine import CannotLoad

PRECISIONS = ("float32", "float16", "bfloat16", "int8")

# x86 and Arm names of what computes a format natively. Without one, torch emulates the floats at a
# sixteenth of float32's speed or slower (measured: bfloat16 on AVX2), and integers gain nothing.
_NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8"},
}


def choose(precision: str, device: str, features: frozenset[str] | None = None) -> str:
    """The precision to run in on a "cpu" or "cuda"; auto is float32 and float16 respectively.

    The two whose answers are the checkpoint's own: float16 moves a probability by 1e-3 at most,
    while what is faster than float32 on a CPU moves it further and is for its operator to choose.

    `features` are the CPU's, by default this machine's. Raises `CannotLoad`.
    """
    if precision == "auto":
        return "float32" if device == "cpu" else "float16"
    if precision not in PRECISIONS:
        raise CannotLoad(f"precision {precision!r} is unknown; it is auto or one of {PRECISIONS}")
    if device != "cpu" and precision == "int8":
        raise CannotLoad("precision 'int8' is for CPUs; a GPU is fastest in float16")
    if device == "cpu" and precision != "float32":
        _check_native(precision, cpu_features() if features is None else features)
    return precision


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that Linux names; empty elsewhere."""
    if not cpuinfo.exists():
        return frozenset()
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    lists = (words for key, _, words in lines if key.strip() in ("flags", "Features"))
    return frozenset(word for words in lists for word in words.split())


def _check_native(precision: str, features: frozenset[str]) -> None:
    if not features & _NATIVE[precision]:
        raise CannotLoad(
            f"precision {precision!r} on this CPU would be emulated and slower than float32 "
            f"(it has none of {sorted(_NATIVE[precision])}); use float32 or auto"
        )

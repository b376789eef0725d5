"""Which number formats this machine computes at speed; refuses the others instead of crawling."""

from pathlib import Path

from server.engine import CannotLoad

PRECISIONS = ("float32", "float16", "bfloat16")

# x86 and Arm names of what computes a format natively; without one, torch emulates it at a
# sixteenth of float32's speed or slower (measured: bfloat16 on AVX2).
_NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}


def choose(precision: str, device: str, features: frozenset[str] | None = None) -> str:
    """The precision to run in on a "cpu" or "cuda"; auto is float32 and float16 respectively.

    `features` are the CPU's, by default this machine's. Raises `CannotLoad`.
    """
    if precision == "auto":
        return "float32" if device == "cpu" else "float16"
    if precision not in PRECISIONS:
        raise CannotLoad(f"precision {precision!r} is unknown; it is auto or one of {PRECISIONS}")
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
            f"precision {precision!r} on this CPU would be emulated and many times slower than "
            f"float32 (it has none of {sorted(_NATIVE[precision])}); use float32 or auto"
        )

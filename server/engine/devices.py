"""Which devices a setting names; imports torch only to look for GPUs."""

from server.engine import CannotLoad


def choose(wanted: str) -> list[str]:
    """Such as ["cpu"] or ["cuda:0", "cuda:1"]; "auto" is every GPU, or else the CPU.

    Raises `CannotLoad` for one that is unknown, named twice or not here.
    """
    if wanted == "auto":
        return _gpus() or ["cpu"]
    names = [{"cuda": "cuda:0"}.get(name.strip(), name.strip()) for name in wanted.split(",")]
    for name in names:
        _check(name)
    if len(set(names)) < len(names):
        raise CannotLoad(f"devices {wanted!r} names one twice")
    return names


def _check(name: str) -> None:
    if name == "cpu":
        return
    if not name.startswith("cuda:"):
        raise CannotLoad(f"device {name!r} is unknown; it is auto, cpu, or a list of cuda:N")
    here = _gpus()
    if name not in here:
        raise CannotLoad(f"device {name!r}: torch finds {len(here)} GPUs; use cpu or auto")


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{i}" for i in range(count)]

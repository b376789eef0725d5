"""Ways to compute the same on a GPU: the fastest that works and agrees is used."""

import re
import sys

import pytest
import torch
from checkpoints import write
from test_engine_batched import HostDevice

from server.engine import batched, checkpoint, kernels, native
from server.engine.batched import BatchEngine
from server.engine.kernels import Plain
from server.engine.trial import fastest

RIGHT = torch.tensor([1.0, -3.0])


def run_of(ways):
    def run(name):
        if isinstance(ways[name], Exception):
            raise ways[name]
        return ways[name]

    return run


@pytest.mark.parametrize(
    ("second", "best"),
    [
        ((1.0, RIGHT + 0.01), "second"),
        ((3.0, RIGHT), "first"),
        ((1.0, RIGHT + 1), "first"),
        ((1.0, RIGHT * torch.nan), "first"),
    ],
)
def test_the_faster_way_is_used_if_it_agrees(second, best):
    run = run_of({"first": (2.0, RIGHT), "second": second})

    assert fastest(["first", "second"], run) == best


def test_a_way_that_fails_is_named_and_costs_the_others_nothing():
    ways = {"first": (2.0, RIGHT), "broken": OSError("no C compiler"), "third": (1.0, RIGHT)}

    with pytest.warns(UserWarning, match=re.escape("broken is not used: OSError('no C compiler')")):
        assert fastest(list(ways), run_of(ways)) == "third"


def test_the_way_that_always_works_has_to_work():
    with pytest.raises(MemoryError):
        fastest(["first"], run_of({"first": MemoryError()}))


class Wrong(Plain):
    """Fast, and mistaken."""

    def norm(self, x, *_, **__):
        return torch.zeros_like(x)


class Broken(Plain):
    def norm(self, *_, **__):
        raise RuntimeError("no kernel image is available")


def test_an_engine_warms_up_with_kernels_that_are_wrong_or_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(batched, "ways", lambda _: [Plain, Wrong, Broken])
    found = checkpoint.find(str(write(tmp_path / "tiny")))
    network, model = native.load(found, torch.device("cpu"), "float32")

    with pytest.warns(UserWarning, match="no kernel image"):
        BatchEngine(network, model, HostDevice()).warm_up()

    assert type(network._kernels) is Plain


def test_ways_are_tried_on_sound_and_not_on_silence(tmp_path, monkeypatch):
    seen = []

    class Looking(Plain):
        def attention(self, slopes, extra, like, frames, numbers):
            seen.append((frames.tolist(), float(like.std())))
            return super().attention(slopes, extra, like, frames, numbers)

    monkeypatch.setattr(batched, "ways", lambda _: [Plain, Looking])
    found = checkpoint.find(str(write(tmp_path / "tiny")))
    network, model = native.load(found, torch.device("cpu"), "float32")
    engine = BatchEngine(network, model, HostDevice())

    engine.warm_up()

    largest = engine._grid.buckets()[0]
    assert seen[0][0] == [largest.frames] * largest.size
    assert seen[0][1] > 0


def test_without_the_compiler_or_a_gpu_there_are_plain_kernels(monkeypatch):
    assert kernels.ways(torch.device("cpu")) == [Plain]

    monkeypatch.setitem(sys.modules, "server.engine.fused", None)

    assert kernels.ways(torch.device("cuda:1")) == [Plain]

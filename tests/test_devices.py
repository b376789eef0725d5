"""Devices of unlike pace behind one batcher. Time is virtual: no test really waits."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from batcher import Batcher, BatchFailed, BatchPolicy, CostModel

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
POLICY = BatchPolicy(
    max_batch_size=4, max_queue_delay=0.0, max_drain_time=1e4, slots_per_device=1, padding_limit=0.5
)


class Machine:
    """Takes `seconds` for a batch, and remembers the sizes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sizes: list[int] = []
        self.failing = False

    async def __call__(self, batch):
        self.sizes.append(len(batch))
        await asyncio.sleep(0.001 if self.failing else self.seconds)
        if self.failing:
            raise RuntimeError
        return batch

    @property
    def served(self) -> int:
        return sum(self.sizes)


def batcher_of(*, fast: Machine, slow: Machine, **sizes: int) -> Batcher[int, int]:
    """Their costs are known from the start, as those of engines are."""
    own = {
        name: (
            replace(POLICY, max_batch_size=sizes.get(f"{name}_size", 4)),
            CostModel(0.0, machine.seconds),
        )
        for name, machine in (("fast", fast), ("slow", slow))
    }
    return Batcher({"slow": slow, "fast": fast}, POLICY, own=own)


async def test_a_slower_device_gets_less_and_both_together_do_the_sum_of_their_paces():
    fast, slow = Machine(1.0), Machine(4.0)

    async with batcher_of(fast=fast, slow=slow) as b:
        started_at = asyncio.get_running_loop().time()
        await asyncio.gather(*(b.submit(n) for n in range(200)))
        elapsed = asyncio.get_running_loop().time() - started_at

    assert Counter(fast=fast.served, slow=slow.served) == {"fast": 160, "slow": 40}
    assert elapsed == pytest.approx(200 / (4 / 1.0 + 4 / 4.0), abs=4.0)


async def test_a_request_alone_goes_to_the_fastest_idle_device():
    fast, slow = Machine(1.0), Machine(4.0)

    async with batcher_of(fast=fast, slow=slow) as b:
        for n in range(5):
            await b.submit(n)

    assert (fast.served, slow.served) == (5, 0)


async def test_a_request_waits_for_a_fast_device_rather_than_be_slow_at_once():
    fast, slow = Machine(1.0), Machine(60.0)

    async with batcher_of(fast=fast, slow=slow) as b:
        first = asyncio.create_task(b.submit(1))
        await asyncio.sleep(0.5)
        second = await b.submit(2)
        await first

    assert second.device == "fast"
    assert second.queue_time == pytest.approx(0.5)


async def test_a_busy_slow_device_is_spared_like_an_idle_one():
    machines = {"slow": Machine(60.0), "slower": Machine(80.0), "fast": Machine(1.0)}
    policy = replace(POLICY, max_batch_size=1, slots_per_device=2, prepare_time=0.1)
    own = {name: (policy, CostModel(0.0, each.seconds)) for name, each in machines.items()}

    # Their second slots open at 59.9 and 79.9 s, when the fast one soon has done the rest.
    async with Batcher(machines, policy, own=own) as b:
        await asyncio.gather(*(b.submit(n) for n in range(80)))

    assert {name: each.served for name, each in machines.items()} == {
        "slow": 1,
        "slower": 1,
        "fast": 78,
    }


async def test_each_device_gets_batches_of_its_own_size():
    fast, slow = Machine(1.0), Machine(1.5)

    async with batcher_of(fast=fast, slow=slow, fast_size=8, slow_size=2) as b:
        await asyncio.gather(*(b.submit(n) for n in range(100)))

    assert max(fast.sizes) == 8
    assert max(slow.sizes) == 2


async def test_what_a_device_takes_is_learnt_of_it_alone():
    fast, slow = Machine(1.0), Machine(1.0)

    async with batcher_of(fast=fast, slow=slow) as b:
        slow.seconds = 10.0  # it was measured while it was cool
        await asyncio.gather(*(b.submit(n) for n in range(200)))
        before = slow.served
        for n in range(5):
            await b.submit(n)

    assert slow.served == before
    assert fast.served > 4 * slow.served


async def test_a_failing_device_gets_next_to_nothing_until_it_works_again():
    fast, slow = Machine(1.0), Machine(4.0)
    fast.failing = True

    async with batcher_of(fast=fast, slow=slow) as b:
        answers = await asyncio.gather(*(b.submit(n) for n in range(100)), return_exceptions=True)
        fast.failing = False
        tried = len(fast.sizes)
        await asyncio.gather(*(b.submit(n) for n in range(400)))

    assert sum(isinstance(answer, BatchFailed) for answer in answers) <= 12
    assert len(fast.sizes) > tried


async def test_a_device_that_hangs_keeps_nothing_from_the_others():
    fast, slow = Machine(1.0), Machine(4.0)

    async with batcher_of(fast=fast, slow=slow) as b:
        fast.seconds = 1e6
        lost = asyncio.create_task(b.submit(0))
        await asyncio.sleep(0.5)
        answer = await b.submit(1)
        lost.cancel()

        assert answer.device == "slow"
        assert answer.queue_time <= 8.0

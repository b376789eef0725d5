"""Whatever arrives, leaves or fails: every call ends once, with its own answer or a BatcherError.

The devices are simulated and time is virtual.
"""

import asyncio
import random
from dataclasses import dataclass
from math import inf

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher import (
    Batcher,
    BatcherError,
    BatchFailed,
    BatchPolicy,
    DeviceLost,
    OutOfMemory,
    Priority,
    Served,
)


@dataclass(eq=False)
class Visit:
    """One caller: when it comes, what it wants, when it loses patience."""

    gap: float
    length: float
    patience: float
    deadline: float
    priority: Priority
    tenant: str
    guilty: bool
    left_at: float = inf


class Machine:
    """Takes time in proportion to the padded length; remembers who should not have been there."""

    def __init__(self, capacity: float, dies_after: int) -> None:
        self.capacity = capacity
        self.runs_left = dies_after
        self.trespassers: list[Visit] = []

    async def __call__(self, batch):
        now = asyncio.get_running_loop().time()
        self.trespassers += [v for v in batch if v.left_at < now or v.deadline <= now]
        cost = len(batch) * max(visit.length for visit in batch)
        await asyncio.sleep(0.01 + 0.02 * cost)
        self.runs_left -= 1
        if self.runs_left < 0:
            raise DeviceLost
        if cost > self.capacity:
            raise OutOfMemory
        if any(visit.guilty for visit in batch):
            raise RuntimeError
        return [id(visit) for visit in batch]


async def call(b, visit):
    loop = asyncio.get_running_loop()
    visit.deadline += loop.time()
    task = asyncio.ensure_future(
        b.submit(
            visit,
            length=visit.length,
            deadline=visit.deadline,
            priority=visit.priority,
            tenant=visit.tenant,
        )
    )
    await asyncio.wait([task], timeout=visit.patience if visit.patience < inf else None)
    if not task.done():
        visit.left_at = loop.time()
        task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def visit_all(visits, machines, policy):
    departures = []
    async with Batcher(machines, policy, on_departure=departures.append) as b:
        calls = []
        for visit in visits:
            await asyncio.sleep(visit.gap)
            calls.append(asyncio.create_task(call(b, visit)))
        answers = await asyncio.gather(*calls)
    return b, answers, departures


def run(visits, machines, policy):
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(visit_all(visits, machines, policy))


def check(visits, machines, outcome):
    """The promises that hold for everybody."""
    b, answers, departures = outcome
    for visit, answer in zip(visits, answers, strict=True):
        if isinstance(answer, Served):
            assert answer.result == id(visit)
        elif isinstance(answer, asyncio.CancelledError):
            assert visit.left_at < inf
        else:
            assert isinstance(answer, BatcherError)
    assert not any(machine.trespassers for machine in machines.values())
    assert len(departures) == len(visits)
    scheduler, now = b._scheduler, b.statistics()
    assert now.waiting == now.running == 0
    assert not b._dispatcher._tasks
    assert not b._ledger.in_flight
    assert not [*scheduler._deadlines, *scheduler._lifts]
    assert not any(lane._shelves or lane._accounts for lane in scheduler._lanes)


VISITS = st.builds(
    Visit,
    gap=st.sampled_from([0.0, 0.0, 0.001, 0.05, 1.0]),
    length=st.just(0.0) | st.floats(0.1, 12.0),
    patience=st.sampled_from([inf, inf, 0.0, 0.05, 0.7]),
    deadline=st.sampled_from([inf, inf, 0.1, 0.6, 3.0]),
    priority=st.sampled_from(Priority),
    tenant=st.sampled_from(["", "a", "b"]),
    guilty=st.sampled_from([False] * 5 + [True]),
)
POLICIES = st.builds(
    BatchPolicy,
    max_batch_size=st.integers(1, 8),
    max_batch_cost=st.sampled_from([5.0, 40.0, 400.0]),
    max_queue_delay=st.sampled_from([0.0, 0.002, 0.5]),
    max_queue_size=st.sampled_from([8, 100]),
    max_drain_time=st.sampled_from([1.0, 100.0]),
    preferred_sizes=st.sampled_from([(), (1, 2, 4), (3,)]),
    padding_limit=st.sampled_from([0.0, 0.05, 0.5]),
    aging=st.sampled_from([0.01, 1.0]),
    max_tenant_in_flight=st.sampled_from([0, 3]),
    tenant_weights=st.sampled_from([{}, {"a": 3.0}]),
    slots_per_device=st.integers(1, 3),
)
MACHINES = st.lists(
    st.builds(Machine, st.sampled_from([8.0, inf]), st.sampled_from([0, 3, 10**6])), min_size=1
)


@settings(max_examples=100)
@given(st.lists(VISITS, max_size=40), MACHINES, POLICIES)
def test_every_call_ends_once_and_nothing_is_left(visits, machines, policy):
    named = {str(number): machine for number, machine in enumerate(machines)}

    outcome = run(visits, named, policy)

    check(visits, named, outcome)


@settings(max_examples=30)
@given(st.lists(VISITS, min_size=1, max_size=40))
def test_only_the_guilty_and_those_who_leave_get_no_answer(visits):
    for visit in visits:
        visit.deadline = inf
    machines = {"cpu": Machine(inf, 10**6)}

    _, answers, _ = run(visits, machines, BatchPolicy(max_drain_time=1e6))

    for visit, answer in zip(visits, answers, strict=True):
        if visit.left_at == inf:
            assert isinstance(answer, BatchFailed if visit.guilty else Served)


def test_five_thousand_calls_of_every_kind_all_end():
    rng = random.Random(7)
    visits = [
        Visit(
            gap=rng.expovariate(40),
            length=rng.lognormvariate(1.0, 0.5),
            patience=rng.choice([inf, inf, rng.random()]),
            deadline=rng.choice([inf, inf, 4 * rng.random()]),
            priority=rng.choice(list(Priority)),
            tenant=rng.choice("abc"),
            guilty=rng.random() < 0.02,
        )
        for _ in range(5_000)
    ]
    machines = {
        "one": Machine(150.0, 10**6),
        "two": Machine(inf, 200),
        "three": Machine(inf, 10**6),
    }

    outcome = run(visits, machines, BatchPolicy())

    check(visits, machines, outcome)
    assert outcome[0].statistics().served > 1_000


@pytest.mark.parametrize("tenant", ["", "poor"])
def test_bulk_is_served_within_a_bound_however_much_goes_before_it(tenant):
    def visit(gap, priority, tenant=""):
        return Visit(gap, 4.0, inf, inf, priority, tenant, guilty=False)

    # Twice what the machine can do; past the bound of the queue the rest is refused.
    interactive = [visit(0.02, Priority.INTERACTIVE) for _ in range(2_000)]
    bulk = visit(0.02, Priority.BULK, tenant)
    policy = BatchPolicy(max_batch_size=8, max_drain_time=5.0, aging=1.0)

    visits = [*interactive[:30], bulk, *interactive[30:]]
    _, answers, _ = run(visits, {"cpu": Machine(inf, 10**6)}, policy)

    assert isinstance(answers[30], Served)
    assert answers[30].queue_time < 2 * policy.aging + policy.max_drain_time + 2.0
    assert sum(isinstance(answer, Served) for answer in answers) > 400


def test_an_interrupt_is_not_swallowed():
    async def interrupted(_):
        raise KeyboardInterrupt

    async def main():
        async with Batcher({"cpu": interrupted}, BatchPolicy()) as b:
            await b.submit(1)

    with pytest.raises(KeyboardInterrupt), asyncio.Runner() as runner:
        runner.run(main())

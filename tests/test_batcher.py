"""The batcher as its callers see it. Time is virtual (looptime): no test really waits."""

import asyncio
from math import inf

import pytest

import batcher
from batcher import Batcher, BatchPolicy, CostModel, Outcome, Priority

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
POLICY = BatchPolicy(max_batch_size=4, max_queue_delay=1.0, max_drain_time=1e4, slots_per_device=1)


class Doubler:
    """A model that takes 10 seconds to double its inputs, and fails on what it was told to."""

    def __init__(self, **failures: BaseException) -> None:
        self.batches: list[list[int]] = []
        self.failures = {int(key[1:]): error for key, error in failures.items()}
        self.capacity = 99

    async def __call__(self, batch):
        self.batches.append(list(batch))
        await asyncio.sleep(10)
        if len(batch) > self.capacity:
            raise batcher.OutOfMemory
        for item in batch:
            if item in self.failures:
                raise self.failures[item]
        return [2 * item for item in batch]


def results(answers):
    return [a.result if isinstance(a, batcher.Served) else type(a) for a in answers]


async def submit_all(b, *items, **options):
    calls = [b.submit(item, **options) for item in items]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_concurrent_callers_share_a_batch_and_get_their_own_answer():
    model = Doubler()
    async with Batcher({"cpu": model}, POLICY) as b:
        answers = await submit_all(b, 1, 2, 3)

    assert results(answers) == [2, 4, 6]
    assert model.batches == [[1, 2, 3]]
    assert answers[0] == batcher.Served(2, 1.0, 10.0, 3, "cpu")


async def test_what_arrives_while_the_model_runs_forms_the_next_batch():
    model = Doubler()
    async with Batcher({"cpu": model}, POLICY) as b, asyncio.TaskGroup() as callers:
        callers.create_task(b.submit(1))
        await asyncio.sleep(2)  # the first batch is running now
        callers.create_task(b.submit(2))
        await asyncio.sleep(8.9)
        last = callers.create_task(b.submit(3))

    assert model.batches == [[1], [2, 3]]
    assert last.result().queue_time == pytest.approx(0.1)


async def test_a_second_slot_is_filled_late_so_that_it_is_filled_well():
    policy = BatchPolicy(max_queue_delay=0.0, slots_per_device=2, prepare_time=1.0)
    model = Doubler()
    async with Batcher({"gpu": model}, policy, cost_model=CostModel(0.0, 10.0)) as b:
        started_at = asyncio.get_running_loop().time()
        calls = [asyncio.create_task(b.submit(1))]
        for item in (2, 3):
            await asyncio.sleep(4)
            calls.append(asyncio.create_task(b.submit(item)))
        await asyncio.sleep(1.5)  # 9.5 s: the first still runs

        assert model.batches == [[1], [2, 3]]
        await asyncio.gather(*calls)
        assert asyncio.get_running_loop().time() - started_at == pytest.approx(19.0)
    # The second run waited a second for the device, which is not its own time.
    assert calls[2].result().run_time == pytest.approx(9.0)


async def test_devices_share_the_work():
    one, two = Doubler(), Doubler()
    async with Batcher({"one": one, "two": two}, POLICY) as b:
        answers = await submit_all(b, *range(8))

    assert results(answers) == [2 * n for n in range(8)]
    assert sorted(map(len, one.batches + two.batches)) == [4, 4]
    assert {a.device for a in answers} == {"one", "two"}


async def test_a_caller_whose_deadline_passes_in_the_queue_is_told_so():
    loop = asyncio.get_running_loop()
    model = Doubler()
    async with Batcher({"cpu": model}, POLICY) as b:
        first = asyncio.create_task(b.submit(1))
        await asyncio.sleep(2)
        with pytest.raises(batcher.DeadlineExpired, match=r"waited 1\.000 s"):
            await b.submit(2, deadline=loop.time() + 1)
        assert not first.done()
        await first

    assert model.batches == [[1]]


async def test_what_cannot_be_in_time_is_refused_at_the_door():
    loop = asyncio.get_running_loop()
    async with Batcher({"cpu": Doubler()}, POLICY, cost_model=CostModel(0.0, 10.0)) as b:
        with pytest.raises(batcher.DeadlineUnmeetable):
            await b.submit(1, deadline=loop.time() + 9)
        first = asyncio.create_task(b.submit(1))
        await asyncio.sleep(2)

        with pytest.raises(batcher.DeadlineUnmeetable) as refusal:
            await b.submit(2, deadline=loop.time() + 12)
        assert refusal.value.by_load
        assert refusal.value.retry_after == pytest.approx(7.0)
        assert b.estimated_drain_time() == pytest.approx(9.0)
        await first


async def test_an_estimate_that_was_wrong_does_not_refuse_for_ever():
    loop = asyncio.get_running_loop()
    async with Batcher({"cpu": Doubler()}, POLICY, cost_model=CostModel(0.0, 1000.0)) as b:
        with pytest.raises(batcher.DeadlineUnmeetable):
            await b.submit(1, deadline=loop.time() + 20)
        await asyncio.sleep(10)

        served = [await b.submit(n, deadline=loop.time() + 20) for n in (1, 2)]

    assert results(served) == [2, 4]


async def test_a_full_queue_says_when_to_come_back():
    policy = BatchPolicy(max_batch_size=1, max_queue_size=1, slots_per_device=1)
    async with Batcher({"cpu": Doubler()}, policy, cost_model=CostModel(0.0, 4.0)) as b:
        first = asyncio.create_task(b.submit(1))
        await asyncio.sleep(1)  # it runs, and 3 s are left
        second = asyncio.create_task(b.submit(2))
        await asyncio.sleep(0)
        answers = await submit_all(b, 3)
        await asyncio.gather(first, second)

    assert isinstance(answers[0], batcher.QueueFull)
    assert answers[0].retry_after == pytest.approx((3.0 + 4.0) / 2)


async def test_a_tenant_over_its_limit_is_refused_until_it_has_an_answer():
    policy = BatchPolicy(max_tenant_in_flight=1)
    async with Batcher({"cpu": Doubler()}, policy) as b:
        first = asyncio.create_task(b.submit(1, tenant="a"))
        await asyncio.sleep(5)
        answers = await submit_all(b, 2, tenant="a") + await submit_all(b, 3, tenant="b")
        await first

        assert results(answers) == [batcher.TenantLimit, 6]
        assert results(await submit_all(b, 4, tenant="a")) == [8]


@pytest.mark.parametrize("length", [-1.0, inf, float("nan")])
async def test_a_length_that_is_none_is_a_mistake_of_the_caller(length):
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        with pytest.raises(ValueError, match="length"):
            await b.submit(1, length=length)


# Callers who leave


async def test_a_cancelled_caller_costs_the_others_nothing():
    model = Doubler()
    async with Batcher({"cpu": model}, POLICY) as b:
        patient = asyncio.create_task(b.submit(1))
        fickle = asyncio.create_task(b.submit(2))
        await asyncio.sleep(0.5)
        fickle.cancel()

        assert (await patient).result == 2
        assert (await b.submit(3)).result == 6
    assert model.batches == [[1], [3]]


async def test_a_caller_cancelled_between_choice_and_run_never_reaches_the_device():
    model = Doubler()
    policy = BatchPolicy(max_queue_delay=0.0)
    async with Batcher({"cpu": model}, policy) as b:
        fickle = asyncio.create_task(b.submit(1))
        await asyncio.sleep(0)  # it waits
        await asyncio.sleep(0)  # it is chosen
        fickle.cancel()
        await asyncio.sleep(1)

        assert model.batches == []
        assert b.statistics().abandoned == 1


async def test_the_answer_of_a_caller_who_left_while_it_ran_is_dropped_and_counted():
    reports = []
    async with Batcher({"cpu": Doubler()}, POLICY, on_batch=reports.append) as b:
        fickle, patient = asyncio.create_task(b.submit(1)), asyncio.create_task(b.submit(2))
        await asyncio.sleep(5)
        fickle.cancel()

        assert (await patient).result == 4
        assert (b.statistics().abandoned, b.statistics().served) == (1, 1)
    assert [report.abandoned for report in reports] == [1]


async def test_a_caller_who_leaves_in_the_very_moment_of_its_failure_breaks_nothing():
    model = Doubler(_1=RuntimeError())
    async with Batcher({"cpu": model}, POLICY, on_departure=lambda _: call.cancel()) as b:
        call = asyncio.create_task(b.submit(1))
        await asyncio.wait([call])

        assert call.cancelled()
        assert b.statistics().failed == 1
        assert (await b.submit(2)).result == 4


# Engines that fail


async def test_one_bad_item_does_not_fail_its_neighbours():
    model = Doubler(_3=RuntimeError("secret path"))
    async with Batcher({"cpu": model}, POLICY) as b:
        answers = await submit_all(b, 1, 2, 3, 4)

    assert results(answers) == [2, 4, batcher.BatchFailed, 8]
    assert model.batches == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]


async def test_the_guilty_hears_of_the_cause_but_its_text_stays_inside():
    async with Batcher({"cpu": Doubler(_3=RuntimeError("secret path"))}, POLICY) as b:
        with pytest.raises(batcher.BatchFailed) as failure:
            await b.submit(3)

        assert isinstance(failure.value.__cause__, RuntimeError)
        assert "secret" not in str(failure.value)
        assert (await b.submit(1)).result == 2


@pytest.mark.parametrize("answer", [[], [1, 2, 3], None])
async def test_a_wrong_number_of_results_is_a_failure_and_nobody_hangs(answer):
    async def miscounts(_):
        return answer

    async with Batcher({"cpu": miscounts}, POLICY) as b:
        answers = await submit_all(b, 1, 2)

    assert results(answers) == [batcher.BatchFailed] * 2


async def test_an_engine_that_cancels_itself_is_one_that_fails():
    async with Batcher({"cpu": Doubler(_1=asyncio.CancelledError())}, POLICY) as b:
        answers = await submit_all(b, 1, 2)

    assert results(answers) == [batcher.BatchFailed, 4]


async def test_who_left_or_expired_is_not_run_again_after_a_failure():
    loop = asyncio.get_running_loop()
    model = Doubler(_1=RuntimeError())
    async with Batcher({"cpu": model}, POLICY) as b:
        calls = [asyncio.create_task(b.submit(1)), asyncio.create_task(b.submit(2))]
        calls.append(asyncio.create_task(b.submit(3, deadline=loop.time() + 5)))
        calls.append(asyncio.create_task(b.submit(4)))
        await asyncio.sleep(3)
        calls[1].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert results(answers) == [
        batcher.BatchFailed,
        asyncio.CancelledError,
        batcher.DeadlineExpired,
        8,
    ]
    assert model.batches == [[3, 1, 2, 4], [1], [4]]


async def test_out_of_memory_halves_the_budget_and_loses_nobody():
    model = Doubler()
    model.capacity = 1
    async with Batcher({"gpu": model}, POLICY) as b:
        answers = await submit_all(b, 1, 2, 3, 4)
        answers += await submit_all(b, 5, 6)

        assert results(answers) == [2, 4, 6, 8, 10, 12]
        assert [len(batch) for batch in model.batches] == [4, 2, 1, 1, 2, 1, 1, 1, 1]
        assert b.statistics().devices["gpu"].budget < 0.25


async def test_a_budget_recovers_slowly():
    model = Doubler(_0=batcher.OutOfMemory())
    async with Batcher({"gpu": model}, POLICY) as b:
        await submit_all(b, 0, 1, 2, 3)
        narrow = b.statistics().devices["gpu"].budget
        for item in range(1, 400):
            await b.submit(item)

        assert narrow <= 0.25
        assert b.statistics().devices["gpu"].budget == 1.0


async def test_what_does_not_fit_even_alone_fails():
    async with Batcher({"gpu": Doubler(_0=batcher.OutOfMemory())}, POLICY) as b:
        assert results(await submit_all(b, 0, 1)) == [batcher.BatchFailed, 2]


async def test_the_batch_of_a_lost_device_goes_to_the_others():
    bad, good = Doubler(_1=batcher.DeviceLost()), Doubler()
    async with Batcher({"bad": bad, "good": good}, POLICY) as b:
        calls = [asyncio.create_task(b.submit(n)) for n in range(1, 9)]
        await asyncio.sleep(5)
        calls[1].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)

        assert results(answers) == [2, asyncio.CancelledError, 6, 8, 10, 12, 14, 16]
        assert list(b.statistics().devices) == ["good"]
    assert bad.batches == [[1, 2, 3, 4]]
    assert good.batches == [[5, 6, 7, 8], [1, 3, 4]]


async def test_a_rescued_request_is_not_closed_with_the_batch_it_came_from():
    policy = BatchPolicy(max_queue_delay=0.0)
    async with Batcher({"bad": Doubler(_1=batcher.DeviceLost()), "good": Doubler()}, policy) as b:
        rescued = asyncio.create_task(b.submit(1))
        await asyncio.sleep(10)  # the device is lost in this very turn of the loop
        await b.submit(2)

        assert results(await asyncio.gather(rescued, return_exceptions=True)) == [2]


async def test_a_request_that_takes_two_devices_down_gets_no_third():
    models = {name: Doubler(_1=batcher.DeviceLost()) for name in "abc"}
    async with Batcher(models, POLICY) as b:
        assert results(await submit_all(b, 1)) == [batcher.BatchFailed]
        assert (await b.submit(2)).result == 4
        assert len(b.statistics().devices) == 1


async def test_without_a_device_the_batcher_is_broken_and_says_so():
    model = Doubler(_1=batcher.DeviceLost("gone"))
    async with Batcher({"gpu": model}, POLICY) as b:
        answers = await submit_all(b, 1, 2, 3, 4, 5)

        assert results(answers) == [batcher.BatchFailed] * 4 + [batcher.Closed]
        with pytest.raises(batcher.DeviceLost, match="gone"):
            await b.wait_broken()
        with pytest.raises(batcher.Closed):
            await b.submit(6)
        assert "broken" in repr(b)
        assert "devices=none" in repr(b)
        assert b.statistics().busy_share == 0.0


async def test_a_bug_of_our_own_breaks_the_batcher_but_leaves_nobody_hanging(monkeypatch):
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        monkeypatch.setattr(b._scheduler, "take_batch", lambda *_: 1 / 0)
        answers = await submit_all(b, 1, 2)

        assert results(answers) == [batcher.Closed] * 2
        with pytest.raises(ZeroDivisionError):
            await b.wait_broken()


async def test_a_bug_in_a_running_batch_leaves_nobody_hanging(monkeypatch):
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        monkeypatch.setattr(b._devices.by_name["cpu"].model, "observe", lambda *_: 1 / 0)
        answers = await submit_all(b, 1, 2)

        assert results(answers) == [batcher.Closed] * 2
        with pytest.raises(ZeroDivisionError):
            await b.wait_broken()


# The end


async def test_closing_serves_what_was_accepted_and_refuses_the_rest():
    loop = asyncio.get_running_loop()
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        accepted = [asyncio.create_task(b.submit(n)) for n in range(6)]
        await asyncio.sleep(0)
        started_at = loop.time()

    assert [call.result().result for call in accepted] == [0, 2, 4, 6, 8, 10]
    assert loop.time() - started_at == pytest.approx(20.0)
    with pytest.raises(batcher.Closed):
        await b.submit(2)


async def test_what_remains_when_the_time_to_drain_is_over_is_told():
    loop = asyncio.get_running_loop()
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        calls = [asyncio.create_task(b.submit(n)) for n in range(5)]
        await asyncio.sleep(1)

        await b.drain(loop.time() + 5)

        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert results(answers) == [batcher.Closed] * 5
        assert b.statistics().closed == 5


async def test_an_engine_that_will_not_stop_does_not_hold_the_end_up():
    async def stubborn(batch):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(20)
        return batch

    loop = asyncio.get_running_loop()
    async with Batcher({"cpu": stubborn}, POLICY) as b:
        call = asyncio.create_task(b.submit(1))
        await asyncio.sleep(2)
        await b.drain(loop.time() + 1)

        assert loop.time() < 5
        assert results(await asyncio.gather(call, return_exceptions=True)) == [batcher.Closed]


async def test_a_drain_that_is_cancelled_ends_at_once():
    b = await Batcher({"cpu": Doubler()}, POLICY).__aenter__()
    call = asyncio.create_task(b.submit(1))
    await asyncio.sleep(2)
    drain = asyncio.create_task(b.drain())
    await asyncio.sleep(1)

    drain.cancel()

    answers = await asyncio.gather(drain, call, return_exceptions=True)
    assert results(answers) == [asyncio.CancelledError, batcher.Closed]


async def test_draining_ends_when_the_last_who_waits_leaves():
    async with Batcher({"cpu": Doubler()}, POLICY) as b:
        first = asyncio.create_task(b.submit(1))
        second = asyncio.create_task(b.submit(2))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()

    assert b.statistics().abandoned == 2
    assert repr(b) == "<Batcher closed waiting=0 running=0 devices=cpu>"


# What it tells


async def test_statistics_and_reports_tell_what_happened():
    batches, departures = [], []
    model = CostModel(0.0, 10.0)
    async with Batcher(
        {"cpu": Doubler()},
        POLICY,
        cost_model=model,
        on_batch=batches.append,
        on_departure=departures.append,
    ) as b:
        loud = asyncio.create_task(b.submit(1, length=4.0, tenant="loud"))
        await submit_all(b, 2, length=3.0, priority=Priority.BULK)
        await loud
        now = b.statistics()

    assert (now.waiting, now.running, now.served, now.refused) == (0, 0, 2, 0)
    assert now.padding == pytest.approx(1 / 8)
    assert now.busy_share == pytest.approx(10 / 11)
    assert now.devices["cpu"].batches == 1
    assert now.waiting_by_priority[Priority.BULK] == 0
    assert [(r.size, r.cost, r.queue_time, r.run_time) for r in batches] == [(2, 8.0, 1.0, 10.0)]
    assert batches[0].predicted_time == 10.0
    assert [(d.outcome, d.tenant, d.time) for d in departures] == [
        (Outcome.SERVED, "loud", 11.0),
        (Outcome.SERVED, "", 11.0),
    ]


async def test_a_hook_that_fails_costs_nobody_an_answer():
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    def broken(_):
        raise RuntimeError("no disk")

    async with Batcher({"cpu": Doubler()}, POLICY, on_batch=broken, on_departure=broken) as b:
        assert (await b.submit(1)).result == 2

    assert len(heard) == 2


async def test_a_batcher_without_a_device_makes_no_sense():
    with pytest.raises(ValueError, match="device"):
        Batcher({}, POLICY)

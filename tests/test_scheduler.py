"""The rules by which waiting requests become batches. No clock: we say what time it is."""

from itertools import count
from math import inf

import pytest

from batcher import BatchPolicy, CostModel, DeadlineUnmeetable, Priority, QueueFull, TenantLimit
from batcher.admission import Admission
from batcher.device import Device, Devices
from batcher.lane import Pending
from batcher.scheduler import Scheduler

NUMBERS = count()
BULK, STREAM, INTERACTIVE = Priority.BULK, Priority.STREAM, Priority.INTERACTIVE


def request(
    length: float = 1.0,
    *,
    at: float = 0.0,
    deadline: float = inf,
    tenant: str = "",
    priority: Priority = INTERACTIVE,
) -> Pending:
    due = min(deadline, at + 10.0)
    return Pending(next(NUMBERS), length, at, deadline, due, tenant, priority)


def scheduler(model: CostModel | None = None, **policy: object) -> Scheduler[Pending]:
    rules = BatchPolicy(**{"max_batch_size": 4, "max_queue_delay": 1.0, **policy})
    devices = Devices({"gpu": None}, rules, model or CostModel(1.0, 0.0), {})
    return Scheduler(rules, devices.seconds_for)


def take(s: Scheduler[Pending], now: float = 0.0, model: CostModel | None = None, budget=1.0):
    device = Device("gpu", None, s._policy, model or CostModel(1.0, 0.0))
    device.budget = budget
    return s.take_batch(now, device)


def filled(requests: list[Pending], **policy: object) -> Scheduler[Pending]:
    s = scheduler(**policy)
    for each in requests:
        s.add(each)
    return s


def batches(s: Scheduler[Pending], now: float = 0.0) -> list[list[Pending]]:
    return list(iter(lambda: take(s, now), []))


# When


def test_nothing_is_due_while_nothing_waits():
    s = scheduler()

    assert s.due_at(0.0, size=4) == inf
    assert take(s, 1.0) == []


def test_a_request_that_finds_the_device_idle_waits_for_the_queue_delay():
    s = filled([request(at=5.0)])

    assert s.due_at(4.0, size=4) == 6.0


def test_what_came_while_the_device_was_busy_is_due_at_once():
    s = filled([request(at=5.0)])

    assert s.due_at(5.5, size=4) <= 5.5


def test_a_full_batch_does_not_wait():
    s = filled([request(at=5.0) for _ in range(4)])

    assert s.due_at(4.0, size=4) == 5.0


def test_the_second_slot_of_a_device_opens_just_before_the_predicted_end():
    policy = BatchPolicy(slots_per_device=2, prepare_time=0.5)
    device: Device[int, int] = Device("gpu", None, policy, CostModel())
    assert device.slot_at() == -inf

    device.start(now=10.0, predicted=4.0)
    assert device.slot_at() == 13.5

    device.start(now=13.5, predicted=2.0)
    assert device.slot_at() == inf
    assert device.busy_until == 16.0

    device.finish(now=15.0, predicted=4.0)
    assert device.busy_until == 17.0


# Who first


def test_a_higher_class_goes_first_and_arrival_settles_the_rest():
    bulk, stream, first, second = (
        request(priority=BULK),
        request(priority=STREAM),
        request(),
        request(),
    )
    s = filled([bulk, stream, first, second], max_batch_size=1)

    assert batches(s) == [[first], [second], [stream], [bulk]]


def test_waiting_lifts_a_request_by_one_class_for_each_aging_period():
    old, fresh = request(at=0.0, priority=BULK), request(at=1.9, priority=STREAM)
    s = filled([old, fresh], max_batch_size=1, aging=1.0)
    assert s.waiting_in(BULK) == 1

    newest = request(at=2.0)
    s.add(newest)

    assert batches(s, now=2.0) == [[old], [newest], [fresh]]


def test_the_earliest_deadline_goes_first_and_none_counts_as_the_longest_drain():
    patient, urgent, fresh = request(at=0.0), request(at=1.0, deadline=5.0), request(at=1.0)
    s = filled([fresh, patient, urgent], max_batch_size=1)

    assert batches(s, now=1.0) == [[urgent], [patient], [fresh]]


def test_tenants_take_turns_by_what_they_have_used():
    flood = [request(tenant="loud") for _ in range(4)]
    quiet = [request(tenant="quiet") for _ in range(2)]
    s = filled(flood + quiet, max_batch_size=1)

    order = [batch[0].tenant for batch in batches(s)]

    assert order[:4] in (["loud", "quiet", "loud", "quiet"], ["loud", "quiet", "quiet", "loud"])


def test_a_tenant_of_weight_three_gets_three_times_the_share():
    both = [request(tenant=tenant) for tenant in ("gold", "tin") for _ in range(40)]
    s = filled(both, max_batch_size=1, tenant_weights={"gold": 3.0}, max_queue_size=100)

    served = [take(s, 0.0)[0].tenant for _ in range(40)]

    assert served.count("gold") == 30


def test_time_spent_idle_is_no_credit():
    s = filled([request(tenant="busy") for _ in range(12)], max_batch_size=1)
    for _ in range(8):
        take(s, 0.0)
    for _ in range(4):
        s.add(request(tenant="late"))

    order = [batch[0].tenant for batch in batches(s)]

    assert order[:4].count("late") == 2 + (order[0] == order[3] == "late")


def test_tenants_share_a_batch_too():
    both = [request(tenant=tenant) for tenant in ("loud", "quiet") for _ in range(8)]
    s = filled(both, max_batch_size=8)

    tenants = [pending.tenant for pending in take(s, 0.0)]

    assert tenants.count("quiet") == 4


# With whom


def test_neighbours_in_length_go_together_and_the_others_wait():
    ten, nine, two, short = request(10.0), request(9.8), request(2.0), request(1.96)
    s = filled([ten, two, nine, short])

    assert batches(s) == [[ten, nine], [two, short]]


def test_a_batch_grows_to_the_side_where_more_of_like_length_wait():
    leader, shorter = request(10.0), request(9.6)
    longer = [request(10.3), request(10.3)]
    s = filled([leader, shorter, *longer], max_batch_size=3)

    assert take(s, 0.0) == [leader, *longer]


def test_the_batch_is_limited_by_its_padded_cost():
    s = filled([request(3.0) for _ in range(4)], max_batch_cost=7.0)

    assert [len(batch) for batch in batches(s)] == [2, 2]


def test_one_that_is_longer_than_the_budget_goes_alone():
    s = filled([request(9.0), request(9.0)], max_batch_cost=7.0)

    assert [len(batch) for batch in batches(s)] == [1, 1]


def test_a_device_with_half_the_budget_gets_half_the_batch():
    s = filled([request(1.0) for _ in range(4)])

    assert len(take(s, budget=0.5)) == 2
    assert len(take(s, budget=0.01)) == 1


def test_unlike_lengths_go_together_where_that_is_cheaper_than_apart():
    dear_padding = filled([request(10.0), request(5.0)])
    dear_batches = filled([request(10.0), request(5.0)])

    assert [len(batch) for batch in batches(dear_padding)] == [1, 1]
    assert len(take(dear_batches, model=CostModel(1.0, 20.0))) == 2


def test_a_lower_class_fills_the_room_that_a_higher_one_leaves():
    bulk = [request(priority=BULK) for _ in range(4)]
    leader = request()
    s = filled([*bulk, leader])

    assert take(s, 0.0) == [leader, *bulk[:3]]


def test_a_batch_is_cut_to_a_preferred_size_and_the_rest_keeps_its_age():
    all_seven = [request(deadline=9.0) for _ in range(7)]
    s = filled(all_seven, max_batch_size=8, preferred_sizes=(1, 2, 4, 8))

    assert batches(s) == [all_seven[:4], all_seven[4:6], all_seven[6:]]


def test_what_is_put_back_is_lifted_by_its_whole_age():
    old = request(at=0.0, priority=BULK)
    s = filled([old], aging=1.0, max_batch_size=1)
    assert take(s, 0.0) == [old]
    fresh = request(at=1.5, priority=STREAM)
    s.add(fresh)

    s.put_back(old, now=1.5)

    assert s.waiting_in(STREAM) == 2
    assert take(s, 2.0) == [old]


# Who leaves


def test_a_request_past_its_deadline_is_taken_out_and_never_batched():
    late, fine = request(deadline=0.5), request(deadline=2.0)
    s = filled([late, fine])
    assert s.next_deadline() == 0.5

    assert s.take_expired(now=0.5) == [late]
    assert s.next_deadline() == 2.0
    assert take(s, 0.5) == [fine]


def test_an_abandoned_request_leaves_every_queue_at_once():
    gone, fine = request(deadline=0.5, priority=BULK), request(priority=BULK)
    s = filled([gone, fine])

    s.discard(gone)

    assert len(s) == 1
    assert s.take_expired(now=0.5) == []
    assert take(s, 5.0) == [fine]


def test_memory_follows_what_waits_not_what_came():
    s = filled([request(2.0, tenant="stays", priority=STREAM)], max_queue_size=10_000)
    for turn in range(2_000):
        gone = request(2.0, deadline=99.0, tenant=f"t{turn}", priority=STREAM)
        s.add(gone)
        s.discard(gone)

    lane = s._lanes[STREAM]
    kept = [
        s._deadlines,
        s._lifts[STREAM],
        lane._accounts,
        next(iter(lane._shelves.values())).turns,
    ]

    assert all(len(each) < 200 for each in kept)


def test_an_empty_scheduler_holds_nothing():
    s = filled([request(n + 1, deadline=99.0, tenant=str(n), priority=BULK) for n in range(9)])

    batches(s)

    assert not any([list(s), s._deadlines, s._lifts])
    assert not any(lane._shelves or lane._accounts or lane.charge for lane in s._lanes)


# Whom to refuse

IDLE = {"in_flight": 0, "busy_time": 0.0, "trusted": True}


def door(s: Scheduler[Pending]) -> Admission:
    return Admission(s, s._policy, lambda length: s.seconds_for(length, 1))


def test_a_request_that_is_in_time_is_let_in():
    assert door(scheduler()).refusal(request(2.0, deadline=2.1), **IDLE) is None


def test_the_queue_is_bounded_by_count():
    s = filled([request(1.0) for _ in range(4)], max_queue_size=4)

    refusal = door(s).refusal(request(), **IDLE)

    assert isinstance(refusal, QueueFull)
    assert refusal.retry_after == 2.0


def test_the_queue_is_bounded_by_the_time_to_drain_it():
    s = filled([request(3.0) for _ in range(4)], max_drain_time=10.0)

    refusal = door(s).refusal(request(), **{**IDLE, "busy_time": 1.0})

    assert isinstance(refusal, QueueFull)
    assert refusal.retry_after == pytest.approx(3.0)


def test_two_devices_drain_the_queue_twice_as_fast():
    rules, model = BatchPolicy(max_batch_size=4, max_drain_time=10.0), CostModel(1.0, 0.0)
    waiting = [request(3.0) for _ in range(4)]

    seconds = {}
    for names in ("a", "ab"):
        devices = Devices(dict.fromkeys(names), rules, model, {})
        s = Scheduler(rules, devices.seconds_for)
        for each in waiting:
            s.add(each)
        seconds[names] = s.work()

    assert seconds == {"a": 12.0, "ab": 6.0}


def test_bulk_that_waits_closes_the_door_to_bulk_only():
    s = filled([request(3.0, priority=BULK) for _ in range(4)], max_drain_time=10.0)

    assert isinstance(door(s).refusal(request(priority=BULK), **IDLE), QueueFull)
    assert door(s).refusal(request(), **IDLE) is None


def test_a_tenant_may_have_only_so_many_requests_in_flight():
    s = scheduler(max_tenant_in_flight=2)

    assert door(s).refusal(request(), **{**IDLE, "in_flight": 1}) is None
    assert isinstance(door(s).refusal(request(), **{**IDLE, "in_flight": 2}), TenantLimit)


def test_one_that_cannot_make_its_deadline_even_alone_is_refused():
    refusal = door(scheduler()).refusal(request(2.0, deadline=1.9), **IDLE)

    assert isinstance(refusal, DeadlineUnmeetable)
    assert not refusal.by_load


def test_a_stale_estimate_does_not_refuse_but_a_passed_deadline_does():
    stale = {**IDLE, "trusted": False}

    assert door(scheduler()).refusal(request(2.0, deadline=1.9), **stale) is None
    assert door(scheduler()).refusal(request(2.0, at=2.0, deadline=2.0), **stale)


def test_one_that_only_the_queue_makes_late_may_try_again():
    s = filled([request(3.0, deadline=3.5)])

    refusal = door(s).refusal(request(2.0, deadline=4.0), **IDLE)

    assert isinstance(refusal, DeadlineUnmeetable)
    assert refusal.by_load
    assert refusal.retry_after == pytest.approx(1.0)


def test_an_urgent_request_is_not_refused_for_what_is_due_after_it():
    s = filled([request(3.0, deadline=9.0), request(3.0)])

    assert door(s).refusal(request(2.0, deadline=4.0), **IDLE) is None


def test_the_flood_of_one_tenant_does_not_close_the_door_to_another():
    s = filled([request(3.0, tenant="loud") for _ in range(9)], max_drain_time=10.0)

    assert isinstance(door(s).refusal(request(tenant="loud"), **IDLE), QueueFull)
    assert door(s).refusal(request(tenant="quiet", deadline=2.0), **IDLE) is None


# What a batch costs


def test_the_cost_model_learns_the_line():
    model = CostModel()
    for cost in (10.0, 40.0, 20.0, 80.0):
        model.observe(cost, 0.5 * cost + 3.0)

    assert model.predict(100.0) == pytest.approx(53.0)
    assert "0.5 s * cost + 3 s" in repr(model)


def test_a_device_that_slows_down_is_believed_soon_and_a_hiccup_is_not():
    model = CostModel()
    for turn in range(50):
        model.observe(10.0 + turn % 7, 1.0 * (10.0 + turn % 7))
    model.observe(12.0, 600.0)
    assert model.predict(12.0) < 20.0

    for turn in range(200):
        model.observe(10.0 + turn % 7, 3.0 * (10.0 + turn % 7))
    assert model.predict(12.0) == pytest.approx(36.0, rel=0.1)


def test_costs_that_do_not_vary_scale_what_was_given():
    model = CostModel(1.0, 2.0)
    for _ in range(9):
        model.observe(4.0, 12.0)

    assert (model.per_cost, model.per_batch) == pytest.approx((2.0, 4.0))


@pytest.mark.parametrize(("cost", "per_cost", "per_batch"), [(4.0, 3.0, 0.0), (0.0, 0.0, 12.0)])
def test_the_first_batch_is_all_that_is_known(cost, per_cost, per_batch):
    model = CostModel()
    model.observe(cost, 12.0)

    assert (model.per_cost, model.per_batch) == (per_cost, per_batch)


def test_costs_next_to_nothing_do_not_make_length_dear():
    model = CostModel()
    for _ in range(3):
        model.observe(1e-280, 5.0)

    assert model.predict(100.0) == 5.0


@pytest.mark.parametrize("times", [{10.0: 9.0, 20.0: 3.0}, {10.0: 1.0, 20.0: 9.0}])
def test_no_coefficient_is_ever_negative(times):
    model = CostModel()
    for cost, run_time in times.items():
        model.observe(cost, run_time)

    assert min(model.per_cost, model.per_batch) == 0.0
    assert max(model.per_cost, model.per_batch) > 0.0


# What an operator may not choose


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"max_batch_size": 9, "max_queue_size": 8},
        {"max_batch_cost": 0.0},
        {"max_drain_time": inf},
        {"aging": 0.0},
        {"max_queue_delay": -1.0},
        {"slots_per_device": 0},
        {"padding_limit": 1.0},
        {"preferred_sizes": (4, 2)},
        {"preferred_sizes": (0, 2)},
        {"tenant_weights": {"nobody": 0.0}},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must|need|may"):
        BatchPolicy(**wrong)


def test_an_estimate_of_the_wait_is_not_trusted_to_the_last_second():
    s = filled([request(3.0, deadline=3.5)])

    refusals = [door(s).refusal(request(2.0, deadline=5.0 + by), **IDLE) for by in (0.2, 0.4)]

    assert isinstance(refusals[0], DeadlineUnmeetable)
    assert refusals[1] is None


def test_the_gap_before_a_run_that_was_waited_for_belongs_to_it():
    device = Device("cpu", None, BatchPolicy(), CostModel())
    device.account(0.0, 10.0, waiting_since=0.0)

    assert device.account(11.0, 21.0, waiting_since=5.0) == (10.0, 11.0)
    assert device.account(40.0, 50.0, waiting_since=39.0) == (10.0, 10.0)

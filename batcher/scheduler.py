"""Decides which waiting requests run together, and when. Pure: time is an argument.

Order: priority class, lifted by waiting; then tenants by weighted fair share; then the earliest
deadline; then arrival. The first in that order starts a batch at once and is joined by its
neighbours in length, on whichever side more of them wait; it never waits for better ones.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Generic

from batcher.device import Device
from batcher.lane import Lane, P, shelf_of
from batcher.policy import BatchPolicy, Priority

WINDOW = 3
"""Shelves of like lengths: a shelf is half as wide as `padding_limit`, so a batch spread evenly
over four would have just that much padding."""


class _Company(Generic[P]):
    """A batch in the making, under the limits of its device."""

    def __init__(self, device: Device[Any, Any], padding_limit: float) -> None:
        self.members: list[P] = []
        self.strict = True
        self._model = device.model
        self.max_size, self._max_cost = device.limits()
        self._padding_limit = padding_limit
        self._longest = 0.0
        self._sum = 0.0

    @property
    def full(self) -> bool:
        return len(self.members) >= self.max_size

    def admit(self, pending: P, /) -> bool:
        size = len(self.members) + 1
        longest = max(self._longest, pending.length)
        total = self._sum + pending.length
        padding = size * longest - total
        if size > self.max_size or (size > 1 and size * longest > self._max_cost):
            return False
        if padding > self._padding_limit * size * longest and not self._cheaper(padding):
            return False
        self.members.append(pending)
        self._longest, self._sum = longest, total
        return True

    def _cheaper(self, padding: float) -> bool:
        """Whether the padding a neighbour adds costs less than its share of another batch.

        That other batch is taken to be as large as this one.
        """
        if self.strict:
            return False
        size = len(self.members)
        added = padding - (size * self._longest - self._sum)
        return self._model.per_cost * added * size <= self._model.per_batch


class Scheduler(Generic[P]):
    """The requests that wait. Every operation is O(log n) per request, amortised."""

    def __init__(self, policy: BatchPolicy, seconds_for: Callable[[float, int], float]) -> None:
        """`seconds_for(length, count)`: of all devices, for so many requests of that length."""
        self._policy = policy
        self.seconds_for = seconds_for
        self._shelf_width = max(policy.padding_limit / 2, 0.01)
        self._lanes = [Lane[P](priority, policy.tenant_weights) for priority in Priority]
        self._waiting: OrderedDict[int, P] = OrderedDict()
        self._lifts: list[tuple[float, int, P]] = []  # when it is lifted
        self._deadlines: list[tuple[float, int, P]] = []
        self._gone = 0  # requests, since the last sweep

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._waiting.values()))

    def waiting_in(self, priority: Priority) -> int:
        """How many wait in a class, those lifted into it included."""
        return self._lanes[priority].count

    def add(self, pending: P) -> None:
        """Lets a request wait."""
        pending.shelf = shelf_of(pending.length, self._shelf_width)
        self._waiting[pending.number] = pending
        self._lanes[pending.priority].add(pending)
        self._watch(pending)

    def put_back(self, pending: P, now: float) -> None:
        """Lets a request wait again that was taken; it keeps its age."""
        self._waiting[pending.number] = pending
        self._waiting.move_to_end(pending.number, last=False)
        self._lanes[self._level(pending, now)].put_back(pending)
        self._watch(pending)

    def discard(self, pending: P) -> None:
        """Forgets a request that waits: its caller has left."""
        self._lanes[pending.level].remove(pending)
        self._forget(pending)

    def take_expired(self, now: float) -> list[P]:
        """Removes and returns the requests whose deadline has passed."""
        expired = []
        while self.next_deadline() <= now:
            pending = self._deadlines[0][2]
            self.discard(pending)
            expired.append(pending)
        return expired

    def take_batch(self, now: float, device: Device[Any, Any]) -> list[P]:
        """Removes and returns the next batch for a device, [] if nothing waits."""
        self._lift(now)
        lanes = [lane for lane in self._lanes if lane.count]
        if not lanes:
            return []
        company: _Company[P] = _Company(device, self._policy.padding_limit)
        leader = lanes[0].first()
        company.admit(leader)
        lanes[0].take(leader)
        if len(self._waiting) > 1 and not company.full:
            self._fill(company, lanes, _densest(lanes, leader.shelf, company.max_size))
        for pending in company.members:
            self._forget(pending)
        return self._cut(company.members, device.policy.preferred_sizes, now)

    def due_at(self, idle_since: float, size: int) -> float:
        """When a batch falls due for a device that is idle since then; inf if nothing waits.

        What came while the device was busy has waited enough, and so has a full batch of `size`.
        """
        if not self._waiting:
            return inf
        oldest = next(iter(self._waiting.values())).enqueued_at
        if oldest <= idle_since or len(self._waiting) >= size:
            return oldest
        return oldest + self._policy.max_queue_delay

    def next_deadline(self) -> float:
        """When the next request that waits expires."""
        deadlines = self._deadlines
        while deadlines and not deadlines[0][2].waits:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else inf

    def load(self, lanes: int = len(Priority)) -> tuple[float, int]:
        """The length together, and the number, of what waits in the highest `lanes` classes."""
        length, count = 0.0, 0
        for lane in self._lanes[:lanes]:
            length += lane.length
            count += lane.count
        return length, count

    def work(self) -> float:
        """Seconds of all devices for all that waits."""
        return self.seconds_for(*self.load())

    def work_before(self, pending: P, due: float = inf) -> float:
        """Seconds of all devices for what goes before a request, were it due at `due`."""
        lane = self._lanes[pending.priority]
        above = self.seconds_for(*self.load(pending.priority)) if pending.priority else 0.0
        if not lane.count:
            return above
        share = lane.share_before(pending.tenant, due)
        return above + share * self.seconds_for(lane.length, lane.count)

    def _fill(self, company: _Company[P], lanes: list[Lane[P]], shelf: int) -> None:
        for strict in (True, False):
            company.strict = strict
            for lane in lanes:
                if lane.count and not company.full:
                    lane.pour(company, shelf)

    def _cut(self, batch: list[P], sizes: tuple[int, ...], now: float) -> list[P]:
        """Down to one of the preferred `sizes`; what was taken last waits on."""
        size = max([one for one in sizes if one <= len(batch)], default=len(batch))
        if size == len(batch):
            return batch
        for pending in reversed(batch[size:]):
            self.put_back(pending, now)
        return batch[:size]

    def _watch(self, pending: P) -> None:
        """Notes when a request expires and when it is lifted."""
        if pending.deadline < inf:
            heappush(self._deadlines, (pending.deadline, pending.number, pending))
        if pending.level:
            periods = pending.priority - pending.level + 1
            at = pending.enqueued_at + periods * self._policy.aging
            heappush(self._lifts, (at, pending.number, pending))

    def _level(self, pending: P, now: float) -> int:
        lifted = int((now - pending.enqueued_at) / self._policy.aging)
        return max(pending.priority - lifted, 0)

    def _lift(self, now: float) -> None:
        """Moves up those that have waited for another `aging`."""
        while self._lifts and self._lifts[0][0] <= now:
            pending = heappop(self._lifts)[2]
            level = self._level(pending, now)
            if pending.level > level:
                self._lanes[pending.level].remove(pending)
                self._lanes[level].add(pending)
                self._watch(pending)

    def _forget(self, pending: P) -> None:
        del self._waiting[pending.number]
        self._gone += 1
        if not self._waiting:
            self._gone = 0
            self._deadlines.clear()
            self._lifts.clear()
        elif self._gone > len(self._waiting) + 64:
            self._sweep()

    def _sweep(self) -> None:
        """Drops what is gone from where removal is lazy, so that memory follows what waits."""
        self._gone = 0
        self._deadlines = [entry for entry in self._deadlines if entry[2].waits]
        self._lifts = [entry for entry in self._lifts if entry[2].waits]
        heapify(self._deadlines)
        heapify(self._lifts)


def _densest(lanes: list[Lane[P]], shelf: int, enough: int) -> int:
    """The upper end of the window around `shelf` that has the most requests, up to `enough`."""
    around = range(shelf - WINDOW + 1, shelf + WINDOW)
    counts = [sum([lane.waiting_on(each) for lane in lanes]) for each in around]
    windows = [min(sum(counts[first : first + WINDOW]), enough) for first in range(WINDOW)]
    return shelf + windows.index(max(windows))

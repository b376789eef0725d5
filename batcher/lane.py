"""The requests of one priority class, in order. Knows neither time nor the limits of a batch.

Shelves hold requests of like length; on a shelf tenants take turns by virtual time (start-time
fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996); of a tenant the request that is due first goes
first. Removal is lazy: an entry is stale once its request's level is not this lane's.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, log, log1p
from typing import Generic, Protocol, TypeVar

from batcher.policy import Priority

GONE = -1
"""The level of a request that no longer waits."""

DUE_STEP = 0.25
"""Seconds; how finely an account knows when its work is due."""


@dataclass(slots=True, eq=False)
class Pending:
    """One request. `due` is what orders a tenant's requests; `level` the lane it waits in."""

    number: int
    length: float
    enqueued_at: float
    deadline: float
    due: float
    tenant: str
    priority: Priority
    shelf: int = field(default=0, init=False)
    level: int = field(default=GONE, init=False)

    @property
    def waits(self) -> bool:
        return self.level != GONE

    @property
    def charge(self) -> float:
        """Length units; where lengths are not given, every request weighs the same."""
        return self.length or 1.0


@dataclass(slots=True, eq=False)
class Account:
    """What one tenant has used (length units over its weight), and what it has waiting."""

    weight: float
    spent: float = 0.0
    count: int = 0
    charge: float = 0.0
    due: dict[int, float] = field(default_factory=dict)  # DUE_STEP -> length units

    def due_before(self, due: float) -> float:
        """The length units waiting that are due no later than `due`, to within DUE_STEP."""
        last = due // DUE_STEP
        return sum(charge for step, charge in self.due.items() if step <= last)


P = TypeVar("P", bound=Pending)
P_contra = TypeVar("P_contra", bound=Pending, contravariant=True)
Place = tuple[float, float, int, P]  # spent, due, number, request; the smallest goes first


class Selection(Protocol[P_contra]):
    """A batch in the making: takes a request in if there is room for it."""

    def admit(self, pending: P_contra, /) -> bool: ...


def shelf_of(length: float, width: float) -> int:
    """The shelf for `length`: lengths on one shelf differ by at most the share `width`."""
    return int(log(length) // log1p(width)) if length > 0 else -(10**9)


class _Shelf(Generic[P]):
    __slots__ = ("count", "queues", "stale", "turns")

    def __init__(self) -> None:
        self.count = 0
        self.stale = 0
        self.turns: list[tuple[float, int, str]] = []
        self.queues: dict[str, list[tuple[float, int, P]]] = {}

    def add(self, pending: P, spent: float) -> None:
        self.count += 1
        queue = self.queues.get(pending.tenant)
        if queue is None:
            self.queues[pending.tenant] = queue = []
            heappush(self.turns, (spent, pending.number, pending.tenant))
        heappush(queue, (pending.due, pending.number, pending))

    def first(self, level: int, accounts: Mapping[str, Account]) -> Place[P]:
        """Who goes first; needs one request that is not stale."""
        turns = self.turns
        while True:
            spent, _, tenant = turns[0]
            queue = self.queues[tenant]
            while queue and queue[0][2].level != level:
                heappop(queue)
                self.stale -= 1
            if not queue:
                heappop(turns)
                del self.queues[tenant]
                continue
            due, number, pending = queue[0]
            now_spent = accounts[tenant].spent
            if spent >= now_spent or len(turns) == 1:
                return now_spent, due, number, pending
            heapreplace(turns, (now_spent, number, tenant))

    def sweep(self, level: int, accounts: Mapping[str, Account]) -> None:
        """Drops what is stale, so that memory follows what waits."""
        self.stale = 0
        fresh = {t: [e for e in q if e[2].level == level] for t, q in self.queues.items()}
        self.queues = {tenant: queue for tenant, queue in fresh.items() if queue}
        for queue in self.queues.values():
            heapify(queue)
        self.turns = [(accounts[t].spent, q[0][1], t) for t, q in self.queues.items()]
        heapify(self.turns)


class Lane(Generic[P]):
    """Adding and removing cost O(log n), amortised; finding the first, a look at each shelf."""

    def __init__(self, level: int, weights: Mapping[str, float]) -> None:
        self.level = level
        self.count = 0
        self.length = 0.0
        self.charge = 0.0
        self._weights = weights
        self._weight = 0.0  # of the tenants that wait
        self._clock = 0.0  # virtual time: `spent` of whoever went first last
        self._shelves: dict[int, _Shelf[P]] = {}
        self._accounts: dict[str, Account] = {}

    def add(self, pending: P) -> None:
        pending.level = self.level
        account = self._accounts.get(pending.tenant) or self._open(pending.tenant)
        if not account.count:
            # Time spent idle is no credit.
            account.spent = max(account.spent, self._clock)
            self._weight += account.weight
        shelf = self._shelves.get(pending.shelf)
        if shelf is None:
            self._shelves[pending.shelf] = shelf = _Shelf()
        shelf.add(pending, account.spent)
        self._count(account, pending, 1)

    def remove(self, pending: P) -> None:
        pending.level = GONE
        shelf = self._shelves[pending.shelf]
        shelf.count -= 1
        if self.count == 1:
            self._reset()
            return
        account = self._accounts[pending.tenant]
        self._count(account, pending, -1)
        if not account.count:
            self._weight -= account.weight
            account.charge = 0.0
            account.due.clear()
        shelf.stale += 1
        if not shelf.count:
            del self._shelves[pending.shelf]
        elif shelf.stale > shelf.count + 32:
            shelf.sweep(self.level, self._accounts)

    def waiting_on(self, shelf: int) -> int:
        """How many wait on a shelf."""
        found = self._shelves.get(shelf)
        return found.count if found else 0

    def first(self) -> P:
        """Who goes first; needs a request that waits."""
        level, accounts = self.level, self._accounts
        place = min([shelf.first(level, accounts) for shelf in self._shelves.values()])
        self._clock = max(self._clock, place[0])
        return place[3]

    def take(self, pending: P) -> None:
        """Removes a request and charges its tenant."""
        account = self._accounts[pending.tenant]
        account.spent += pending.charge / account.weight
        self.remove(pending)

    def put_back(self, pending: P) -> None:
        """Undoes `take`; what the tenant was charged is no credit past the virtual time."""
        account = self._accounts.get(pending.tenant)
        if account:
            spent = account.spent - pending.charge / account.weight
            account.spent = max(spent, self._clock)
        self.add(pending)

    def pour(self, selection: Selection[P], shelf: int) -> None:
        """Takes requests into the selection, nearest in length to `shelf` first."""
        keys = sorted(self._shelves)
        middle = bisect_right(keys, shelf)
        for side in (reversed(keys[:middle]), iter(keys[middle:])):
            self._pour_side(selection, side)

    def share_before(self, tenant: str, due: float) -> float:
        """The share of the lane's work that goes before a request of `tenant` due at `due`.

        Its tenant's earlier work, times what the others may have meanwhile; at most 1.
        """
        account = self._accounts.get(tenant)
        if account is None or not account.count:
            return 0.0
        own = account.charge if due == inf else account.due_before(due)
        return min(1.0, own / self.charge * self._weight / account.weight)

    def _pour_side(self, selection: Selection[P], keys: Iterator[int]) -> None:
        for key in keys:
            shelf = self._shelves.get(key)
            while shelf and shelf.count:
                pending = shelf.first(self.level, self._accounts)[3]
                if not selection.admit(pending):
                    return
                self.take(pending)

    def _count(self, account: Account, pending: P, sign: int) -> None:
        charge = sign * pending.charge
        step = int(pending.due // DUE_STEP)
        self.count += sign
        self.length += sign * pending.length
        self.charge += charge
        account.count += sign
        account.charge += charge
        account.due[step] = left = account.due.get(step, 0.0) + charge
        if left <= 1e-9:  # what rounding leaves of nothing
            del account.due[step]

    def _open(self, tenant: str) -> Account:
        # Tenants that left are forgotten with the little they owe once they are the majority.
        if len(self._accounts) > 2 * self.count + 64:
            self._accounts = {t: a for t, a in self._accounts.items() if a.count}
        account = self._accounts[tenant] = Account(self._weights.get(tenant, 1.0))
        return account

    def _reset(self) -> None:
        """Nobody waits any more; what rounding left goes too."""
        self.count = 0
        self.length = self.charge = self._weight = self._clock = 0.0
        self._shelves.clear()
        self._accounts.clear()

"""Sessions where other replicas find them: Redis. Knows no session; never makes a stream wait long.

What a session needs to go on is a hash: `owner`, `state`, and its final results by their numbers.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from math import inf
from typing import Any
from uuid import uuid4

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterError, MovedError, RedisError

from server.config import SettingsError

log = structlog.get_logger()

PREFIX = "speechemotion:stream:"
TIMEOUT = 0.5  # s; to connect, and for each answer
LONGEST = 4 * TIMEOUT  # s; a command with its connection, tried twice
PAUSE = 1.0  # s; after a failure nobody asks
FIELDS = 1_000  # names and values in one command
AT_ONCE = 16  # commands; the others wait for these

SAVE = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return -1 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HLEN', KEYS[1])
"""
CLAIM = """
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then return {} end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
"""
FORGET = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Saved(Enum):
    """What became of a session that was to be kept."""

    KEPT = auto()
    INCOMPLETE = auto()  # earlier results are missing: the store has lost them
    TAKEN = auto()  # another replica has the session now
    FAILED = auto()


class StoreFailed(Exception):
    """The store does not answer in time."""


class BadStore(SettingsError):
    """`redis_url` cannot be used; the text has nothing of it, for it may hold a password."""


class SessionStore:
    """One for all streams of this replica. Raises nothing but what it says."""

    def __init__(self, url: str, keep: float, on_up: Callable[[bool], None]) -> None:
        """`keep`: seconds for which a session that nobody saves can be found. Raises BadStore."""
        self.replica = uuid4().hex
        self._redis = _client(url)
        self._keep_ms = round(1000 * keep)
        self._on_up = on_up
        self._up: bool | None = None  # nobody has asked yet
        self._ask_again_at = 0.0  # loop time
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._now = asyncio.get_running_loop().time
        self._save = self._redis.register_script(SAVE)
        self._claim = self._redis.register_script(CLAIM)
        self._forget = self._redis.register_script(FORGET)

    @property
    def answers(self) -> bool:
        """Whether it did when it was last asked."""
        return self._up is True

    async def save(
        self, token: str, state: bytes, finals: Mapping[int, bytes], total: int
    ) -> Saved:
        """Adds `finals` to those that are there, `total` together, and then replaces the state."""
        fields = [part for number, one in finals.items() for part in (b"%d" % number, one)]
        batches = [fields[start : start + FIELDS] for start in range(0, len(fields), FIELDS)] or [
            []
        ]
        batches[-1] += [b"state", state]
        length = 0
        for batch in batches:
            try:
                length = await self._write(token, batch)
            except StoreFailed:
                return Saved.FAILED
            if length < 0:
                return Saved.TAKEN
        return Saved.KEPT if length >= total + len(("owner", "state")) else Saved.INCOMPLETE

    async def claim(self, token: str) -> dict[bytes, bytes]:
        """The session is this replica's from now on; empty if there is none. Raises StoreFailed."""
        args: list[str | int] = [self.replica, self._keep_ms]
        flat = await self._ask(lambda: self._claim(keys=[_key(token)], args=args))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def is_elsewhere(self, token: str) -> bool:
        """Whether another replica has claimed it. Raises StoreFailed."""
        owner = await self._ask(lambda: self._redis.hget(_key(token), "owner"))
        return owner is not None and owner != self.replica.encode()

    async def forget(self, token: str) -> None:
        """The session is over, unless another replica goes on with it."""
        with suppress(StoreFailed):  # then it expires
            await self._ask(lambda: self._forget(keys=[_key(token)], args=[self.replica]))

    async def close(self) -> None:
        """Finishes what was asked, and asks nothing more."""
        self._ask_again_at = inf
        for _ in range(AT_ONCE):
            await self._turns.acquire()
        await self._redis.aclose()

    async def _write(self, token: str, fields: list[bytes]) -> int:
        args: list[str | int | bytes] = [self.replica, self._keep_ms, *fields]
        length: int = await self._ask(lambda: self._save(keys=[_key(token)], args=args))
        return length

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turns:
            if self._now() < self._ask_again_at:
                raise StoreFailed
            try:
                async with asyncio.timeout(LONGEST):
                    answer = await command()
            except (RedisError, OSError, TimeoutError) as error:
                self._ask_again_at = max(self._ask_again_at, self._now() + PAUSE)
                if self._up is not False:
                    log.warning("sessions are not kept", reason=_reason(error))
                self._say(up=False)
                raise StoreFailed from None
        self._say(up=True)
        return answer

    def _say(self, *, up: bool) -> None:
        if up is not self._up:
            self._up = up
            self._on_up(up)


def _client(url: str) -> Redis | RedisCluster:
    """Connects to nothing yet. Raises BadStore."""
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 1),  # a connection may have been closed while nobody used it
        "driver_info": None,  # it would read its own version from the disk, on the loop
    }
    scheme, cluster, rest = url.partition("+cluster://")
    try:
        if cluster:
            return RedisCluster.from_url(f"{scheme}://{rest}", **options)
        client = Redis.from_url(url, **options)
        # Refuses what it does not know.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError):
        text = "redis_url: not a URL, a parameter that redis-py does not know, or a password with"
        raise BadStore(f"{text} one of / # ? @ % that is not written as %2F and so on") from None
    return client


def _reason(error: Exception) -> str:
    """Redis and redis-py name users, hosts and files, and never a password."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, (MovedError, ClusterError)):
        return f"{said}. A Redis Cluster needs redis+cluster:// in redis_url"
    return said


def _key(token: str) -> str:
    """Whoever can list the keys cannot resume the sessions."""
    return PREFIX + hashlib.sha256(token.encode()).hexdigest()

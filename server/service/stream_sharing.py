"""Sessions that replicas share: which are kept in the store, and how one is taken over."""

import asyncio
import time
from collections.abc import Container

from server.audio.raw_intake import Place, RawIntake
from server.errors import SessionStoreUnavailable
from server.service.stream_config import Order
from server.service.stream_keeper import Keeper, config_digest
from server.service.stream_messages import Result
from server.service.stream_opening import Opening
from server.service.stream_outbox import Workshop
from server.service.stream_store import SessionStore, StoreFailed
from server.speech import InvalidInput
from server.streaming.checkpoint import Checkpoint, Final, Unreadable, read_checkpoint, read_final
from server.streaming.session import Session


class Sharing:
    """The keepers of this replica's sessions; only raw samples can go on anywhere else."""

    def __init__(self, store: SessionStore, shop: Workshop, opening: Opening) -> None:
        self._store = store
        self._shop = shop
        self._opening = opening
        self._now = asyncio.get_running_loop().time
        self._keepers: dict[str, Keeper] = {}  # by resume token

    def keeper(self, token: str) -> Keeper | None:
        return self._keepers.get(token)

    def keep(self, session: Session[Result], started_at: float | None = None) -> Keeper | None:
        """From now on other replicas may find it; `started_at` is now, or in UNIX seconds."""
        if not isinstance(session.source, RawIntake):
            return None
        keeper = self._keepers[session.token] = Keeper(
            self._store,
            session,
            session.source,
            model=self._shop.model.digest,
            started_at=time.time() if started_at is None else started_at,
            apart=self._shop.apart,
        )
        return keeper

    def forget(self, session: Session[Result]) -> None:
        """It is over."""
        keeper = self._keepers.pop(session.token, None)
        if keeper is not None:
            keeper.give_up()

    def is_kept(self, session: Session[Result]) -> bool:
        """Whether another replica would find it now."""
        return bool(session.kept) and self._store.answers

    def let_go(self, token: str) -> None:
        """Another replica has it; ours is out of date and must not be saved any more."""
        keeper = self._keepers.pop(token, None)
        if keeper is not None:
            keeper.stop()

    def prune(self, alive: Container[str]) -> None:
        """Drops the keepers of sessions that have gone otherwise; the store forgets by itself."""
        for token in [one for one in self._keepers if one not in alive]:
            del self._keepers[token]

    async def is_elsewhere(self, token: str) -> bool:
        """Whether another replica has taken it over; if nobody can say it is here."""
        if token not in self._keepers:
            return False
        try:
            return await self._store.is_elsewhere(token)
        except StoreFailed:
            return False

    async def take_over(self, token: str, order: Order) -> Session[Result] | None:
        """The session as another replica has kept it; None if there is none.

        Raises InvalidInput CONFIG_CHANGED, SessionStoreUnavailable.
        """
        try:
            stored = await self._store.claim(token)
            checkpoint = read_checkpoint(stored[b"state"]) if stored else None
            if checkpoint is None or checkpoint.model != self._shop.model.digest:
                return None
            if checkpoint.config != config_digest(order.identity):
                text = "A stream is resumed with the config it was opened with."
                raise InvalidInput("CONFIG_CHANGED", text, field="config")
            finals = _finals(stored, len(self._shop.model.labels))
        except StoreFailed:
            raise SessionStoreUnavailable from None
        except Unreadable:
            return None
        if len(finals) < checkpoint.finals:
            return None
        return await self._rebuild(token, order, checkpoint, finals)

    async def _rebuild(
        self, token: str, order: Order, checkpoint: Checkpoint, finals: list[Final]
    ) -> Session[Result]:
        session = await self._opening.session(
            order,
            identity=checkpoint.identity,
            token=token,
            tenant=checkpoint.tenant,
            age=max(0.0, time.time() - checkpoint.started_at),
        )
        assert isinstance(session.source, RawIntake)  # no other has a keeper
        place = Place(checkpoint.frame, checkpoint.sample)
        session.source.go_on(place, checkpoint.bookmark.needs)
        session.go_on(checkpoint.bookmark, checkpoint.processed, checkpoint.final)
        session.known = len(finals)
        session.behind = self._behind(session)
        delivered = finals[: checkpoint.finals]
        for final in delivered:
            session.timeline.add(final.start, final.end, final.scores)
            if final.answer:
                session.remember(Result.FromString(final.answer), self._now())
        keeper = self.keep(session, checkpoint.started_at)
        assert keeper is not None
        keeper.recall(delivered, checkpoint.frame)
        return session

    def _behind(self, session: Session[Result]) -> float:
        """A live client has sent no more than has passed, and holds no more than is resumed."""
        limits = self._shop.limits
        missing = self._now() - session.started_at - session.seconds()
        return min(max(0.0, missing), limits.resume_window + limits.max_segment_ms / 1000)


def _finals(stored: dict[bytes, bytes], labels: int) -> list[Final]:
    """Those from the first on without a gap. Raises Unreadable."""
    finals: list[Final] = []
    while (data := stored.get(b"%d" % len(finals))) is not None:
        finals.append(read_final(data, labels))
    return finals

"""Keeps one session where other replicas find it, beside the stream and never in its way."""

import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from server.audio.raw_intake import Place, RawIntake
from server.service.stream_messages import Result
from server.service.stream_store import Saved, SessionStore
from server.streaming.checkpoint import Checkpoint, Final
from server.streaming.decisions import Bookmark
from server.streaming.session import Session

MOST_AHEAD = 4 * 2**20
"""Bytes that a client may have to send again. With more the session stays with this replica: it
needs a longer stretch than a client will hold, or the store has been away for too long."""

LARGEST = 2**18
"""Bytes of a result that is kept; the frame embeddings of a minute are 12 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Milestone:
    """A point between two decisions; it is reached when all before it is delivered."""

    bookmark: Bookmark
    place: Place


class Keeper:
    """Of the milestones that are reached while one is being saved, the last is saved next."""

    def __init__(
        self,
        store: SessionStore,
        session: Session[Result],
        source: RawIntake,
        *,
        model: str,
        started_at: float,
        apart: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`model` is the digest of the weights, `started_at` in UNIX seconds."""
        self.on_taken: Callable[[], None] = _nothing  # another replica has the session
        self._store = store
        self._session = session
        self._source = source
        self._config = config_digest(session.config)
        self._model = model
        self._started_at = started_at
        self._apart = apart
        self._finals: list[bytes] = []  # all of them, without their answers
        self._answered: deque[int] = deque()  # those whose answers are in the store
        self._unsaved: dict[int, bytes] = {}
        self._next: Checkpoint | None = None
        self._saving = False
        self._given_up = self._forgets = False
        session.kept = 0

    def recall(self, finals: list[Final], kept: int) -> None:
        """The session comes from the store, where all this is already."""
        self._finals = [Final(one.start, one.end, one.scores).to_bytes() for one in finals]
        self._answered.extend(index for index, one in enumerate(finals) if one.answer)
        self._session.kept = kept

    def delivered(self, final: Final) -> None:
        """The next final result; answers that are too old to be replayed are left out."""
        if self._given_up:
            return
        index = len(self._finals)
        self._finals.append(Final(final.start, final.end, final.scores).to_bytes())
        self._unsaved[index] = final.to_bytes()
        if len(final.answer) > LARGEST:
            self.give_up()
        self._answered.append(index)
        while len(self._answered) > len(self._session.replay()):
            old = self._answered.popleft()
            self._unsaved[old] = self._finals[old]

    def milestone(self) -> Milestone | None:
        """Here and now, after all that was decided; None if it is not to be kept any more."""
        if not self._given_up and self._is_far_ahead():
            self.give_up()
        if self._given_up:
            return None
        bookmark = self._session.bookmark()
        return Milestone(bookmark, self._source.place(bookmark.needs))

    def reached(self, milestone: Milestone) -> None:
        """All that was decided before it is delivered."""
        if self._given_up:
            return
        place, session = milestone.place, self._session
        self._next = Checkpoint(
            identity=session.id,
            tenant=session.tenant,
            config=self._config,
            model=self._model,
            started_at=self._started_at,
            finals=len(self._finals),
            processed=session.processed,
            final=session.final,
            frame=place.frame,
            sample=place.sample,
            bookmark=milestone.bookmark,
        )
        if not self._saving:
            self._saving = True
            self._apart(self._save())

    def stop(self) -> None:
        """Saves nothing any more."""
        self._given_up, self._next = True, None
        self._unsaved.clear()
        self._session.kept = None

    def give_up(self) -> None:
        """From now on the session lives on this replica alone, or not at all."""
        self.stop()
        self._forgets = True
        if not self._saving:  # else after what is being saved
            self._apart(self._store.forget(self._session.token))

    def _is_far_ahead(self) -> bool:
        kept = (self._session.kept or 0) * self._source.frame_bytes
        return self._source.size - kept > MOST_AHEAD

    async def _save(self) -> None:
        while (checkpoint := self._next) is not None:
            self._next = None
            await self._save_one(checkpoint)
        self._saving = False
        if self._forgets:
            await self._store.forget(self._session.token)

    async def _save_one(self, checkpoint: Checkpoint) -> None:
        finals, self._unsaved = self._unsaved, {}
        total, token = len(self._finals), self._session.token
        saved = await self._store.save(token, checkpoint.to_bytes(), finals, total)
        if saved is Saved.INCOMPLETE:
            everything = dict(enumerate(self._finals)) | finals
            saved = await self._store.save(token, checkpoint.to_bytes(), everything, total)
        if self._given_up:
            return
        if saved is Saved.KEPT:
            self._session.kept = checkpoint.frame
        elif saved is Saved.TAKEN:
            self.on_taken()
        else:
            self._unsaved = finals | self._unsaved


def config_digest(config: bytes) -> str:
    """Of what the client ordered, and must order again to resume."""
    return hashlib.sha256(config).hexdigest()


def _nothing() -> None:
    pass

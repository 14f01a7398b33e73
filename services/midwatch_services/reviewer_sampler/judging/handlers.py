"""What the sampler does with the verdicts of people: keeps each, and says what stands once a run is settled."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.reviews import ReviewAgreed, ReviewDisputed, ReviewJudged
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox, Outgoing

from .. import store as draws
from ..decide import Run, name_of
from . import decide, store
from .decide import CORRECTED_LIMIT, NOTE_LIMIT, Agreed, Disputed, Opinion
from .store import Item, new_key

SOURCE = "/services/reviewer-sampler"
NAME_LIMIT = 128  # characters of a reviewer's name
LONGEST = 8 * 3600.0  # seconds of reading that are believed

Judged = Envelope[ReviewJudged]


def decode(subject: str, body: bytes) -> Judged:
    """A judgement, its agent checked against the subject's. Raises Refused."""
    envelope: Judged = codec.decode(subject, body)
    agent = subject.split(".", 3)[2]
    if envelope.data.agent != agent:
        raise Refused("wrong_agent", f"the subject says agent {agent!r}, the body says {envelope.data.agent!r}")
    return envelope


@dataclass(frozen=True, slots=True)
class _Said:
    """A judgement as it is judged by: its run and what was said, as of when the server stored it."""

    run: Run
    opinion: Opinion
    event: Judged


class Judging:
    """Folds each judgement into its run, in one transaction with what is to be said of it."""

    def __init__(
        self, database: Database, outbox: Outbox, cards: CardBook, now: Callable[[], datetime],
        *, new_key: Callable[[], bytes] = new_key,
    ) -> None:  # fmt: skip
        """`new_key`: of a day on which no run was drawn."""
        self._database, self.outbox, self._cards, self._now, self._new_key = database, outbox, cards, now, new_key

    async def on_judged(self, batch: list[Received[Judged]]) -> None:
        """Judgements in the order of the stream; of two by one person of one run the first counts."""
        now = self._now()

        def work(conn: Connection) -> None:
            for received in batch:
                self._judge(conn, self._said(received), now)

        await self._database.write(work)
        faults.reach("reviewer_sampler.judged")

    def _said(self, received: Received[Judged]) -> _Said:
        data = received.event.data
        rule = self._cards.get(data.agent).review
        reasons, note = decide.named(data.reasons, data.note, rule)
        opinion = Opinion(
            data.by.strip()[:NAME_LIMIT] or "unknown", data.verdict, reasons, data.corrected[:CORRECTED_LIMIT],
            note[:NOTE_LIMIT], received.stored_at.timestamp(),
        )  # fmt: skip
        return _Said(name_of(data.agent, data.run_id, data.mode), opinion, received.event)

    def _judge(self, conn: Connection, said: _Said, now: datetime) -> None:
        run, one = said.run, said.opinion
        if store.judged(conn, run, one.by):
            return
        rule = self._cards.get(run.agent).review
        item = store.item(conn, run) or self._add(conn, said, now)
        key = draws.key_of(conn, item.day, self._new_key())[0]
        second = item.second or int(decide.wants_second(decide.draw_second(key.key, run), rule))
        holding = store.holding(conn, run, one.by, one.at)
        others = len(holding.keys() - {one.by})
        before = store.opinions(conn, run)
        outcome = decide.Outcome(item.state, item.second, False)
        if decide.may_count(item.state, second, others, one.by in holding):
            outcome = decide.fold(item.state, before, one, rule, second)
        seconds = _seconds(said, holding.get(one.by))
        one = one if item.state != "erased" else Opinion(one.by, one.verdict, at=one.at)
        store.keep(
            conn, run, one, event=said.event.id, claim=said.event.data.claim[:64], seconds=seconds,
            counts=outcome.counts,
        )  # fmt: skip
        if outcome.counts:
            verdict = outcome.decision.verdict if isinstance(outcome.decision, Agreed) else None
            store.move(conn, run, outcome, verdict, now)
        if outcome.decision is not None:
            self.outbox.add(conn, outgoing(item, outcome.decision, now))

    def _add(self, conn: Connection, said: _Said, now: datetime) -> Item:
        """Somebody read a run that nobody drew: nothing of that is lost, and it tells nothing of the failure rate."""
        day = datetime.fromtimestamp(said.opinion.at, UTC).date().isoformat()
        key = draws.key_of(conn, day, self._new_key())[0]
        return store.add(conn, said.run, said.event.data, day, key.hash, now)


def _seconds(said: _Said, taken_at: float | None) -> float | None:
    """How long it took to read: the reviewer's word, else since it was taken."""
    seconds = said.event.data.seconds
    if seconds is None and taken_at is not None:
        seconds = said.opinion.at - taken_at
    return seconds if seconds is not None and 0 <= seconds <= LONGEST else None


def outgoing(item: Item, decision: Agreed | Disputed, now: datetime) -> Outgoing:
    """The message of what stands, or that two differ; its id follows from the run's name."""
    run, data = item.run, _data(item, decision)
    event = "agreed" if isinstance(decision, Agreed) else "disputed"
    id = f"{event}-{sha256(chr(0).join(run).encode()).hexdigest()}"
    envelope = codec.envelope("review", event, data, source=SOURCE, id=id, time=now, subject=run.run_id)
    return Outgoing(id, subjects.review(run.agent, event), codec.encode(envelope))


def _data(item: Item, decision: Agreed | Disputed) -> ReviewAgreed | ReviewDisputed:
    run = item.run
    if isinstance(decision, Disputed):
        return ReviewDisputed(
            run_id=run.run_id, agent=run.agent, by=list(decision.by), ticket=item.ticket, mode=item.mode
        )
    return ReviewAgreed(
        run_id=run.run_id, agent=run.agent, verdict=decision.verdict, by=list(decision.by), note=decision.note,
        ticket=item.ticket, mode=item.mode, reasons=list(decision.reasons), corrected=decision.corrected,
        drawn=item.drawn, version=item.version,
    )  # fmt: skip

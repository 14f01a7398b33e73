"""A reviewer-sampler with a clock that a test sets, and what it hears: run events, alerts, halts, verdicts."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, control, governance, reviews, subjects
from midwatch.contracts.control import Card, ReviewRule, SwitchRecord
from midwatch.contracts.envelope import new_id
from midwatch.contracts.runs import RUN_EVENTS
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch_services.reviewer_sampler.handlers import Sampler
from midwatch_services.reviewer_sampler.schedule.handlers import heard
from midwatch_services.reviewer_sampler.schedule.planner import Planner

QUEUE = "SELECT run_id, drawn, causes, state FROM reviewer_sampler_queue ORDER BY run_id"
FIELDS: dict[str, dict[str, Any]] = {
    "started": {"input": "hello"},
    "said": {"by": "customer", "text": "hi"},
    "tool_called": {"tool": "look_up"},
    "handed_off": {"to": "human", "reason": "asked"},
    "model_called": {"model": "m"},
    "finished": {"resolution": "resolved"},
}


def day(text: str, hour: int = 12) -> datetime:
    return datetime.fromisoformat(f"{text}T{hour:02d}:00:00+00:00")


class Bed:
    """One life of the sampler: what a process has, made anew for each."""

    def __init__(self, url: str, nc: Client, js: JetStreamContext, now: datetime, log_url: str = "") -> None:
        self.time, self.js = now, js
        self.database = Database(url, name="reviewer-sampler")
        self.cards = CardBook(js, nc)
        self.sampler = Sampler(
            self.database, nc, js, self.cards, lambda: self.time, keep=timedelta(days=30), log_url=log_url
        )
        self.scheduler = self.sampler.scheduler
        self.planner = Planner(self.database, self.sampler.outbox, self.cards, lambda: self.time)

    async def card(self, agent: str = "desk", **rule: Any) -> None:
        """Puts the agent's card in force."""
        card = Card(agent=agent, owner="Ann", purpose="p", can=["c"], review=ReviewRule(**rule))
        self.cards._cards[agent] = card
        await self.js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))

    async def run(self, run_id: str, event: str = "started", **fields: Any) -> None:
        """One run event, stored now."""
        await self.sampler.on_events([self.received(run_id, event, **fields)])

    def received(self, run_id: str, event: str = "started", agent: str = "desk", **fields: Any) -> Received:
        given = {"version": "1", "mode": "live", "seq": 0, **FIELDS[event], **fields}
        data = RUN_EVENTS[event](run_id=run_id, agent=agent, **given)
        body = codec.encode(codec.envelope("run", event, data, source=f"/agents/{agent}/test", subject=run_id))
        subject = subjects.run(agent, event)
        return Received(codec.decode_run(subject, body), body, subject, None, 1, 1, self.time, "reply")

    async def hear(self, *batch: Received[Any]) -> None:
        """Alerts and halts."""
        await self.scheduler.on_governance(batch)

    def alert(self, agent: str = "desk", at: datetime | None = None, **fields: Any) -> Received[Any]:
        subject, body = alert(agent, **fields)
        return Received(heard(subject, body), body, subject, None, 1, 1, at or self.time, "reply")

    def halt(self, key: str = "agent.desk", at: datetime | None = None, **fields: Any) -> Received[Any]:
        subject, body = halt(key, **fields)
        return Received(heard(subject, body), body, subject, None, 1, 1, at or self.time, "reply")

    async def judged(self, verdicts: Mapping[str, str]) -> None:
        """These runs are settled, by verdict."""
        statement = sa.text(
            "UPDATE reviewer_sampler_queue SET state = 'settled', verdict = :verdict, settled_at = :at "
            "WHERE run_id = :run_id AND agent = 'desk'"
        )
        rows = [
            {"run_id": run_id, "verdict": verdict, "at": self.time.timestamp()} for run_id, verdict in verdicts.items()
        ]
        await self.database.write(lambda conn: conn.execute(statement, rows))

    async def failed_once(self, *run_ids: str) -> None:
        """One person failed these runs, and they wait for a second."""
        at = self.time.timestamp()
        moved = "UPDATE reviewer_sampler_queue SET state = 'judged', second = 2 WHERE run_id = :run_id"
        said = (
            "INSERT INTO reviewer_sampler_judgements (agent, run_id, track, by, event, claim, verdict, reasons, "
            "corrected, note, judged_at, counts) "
            "VALUES ('desk', :run_id, 'live', 'ann', :run_id, '', 'fail', '[]', '', '', :at, 1)"
        )
        rows = [{"run_id": run_id, "at": at} for run_id in run_ids]

        def work(conn: sa.Connection) -> None:
            conn.execute(sa.text(moved), rows)
            conn.execute(sa.text(said), rows)

        await self.database.write(work)

    async def said(self, kind: type[Any]) -> list[Any]:
        """What was published of that kind, in order."""
        await self.sampler.outbox.drain()
        state = (await self.js.stream_info(subjects.GOVERNANCE)).state
        found = [await self.js.get_msg(subjects.GOVERNANCE, seq) for seq in range(1, state.last_seq + 1)]
        events = [codec.decode(one.subject or "", one.data or b"").data for one in found]
        return [data for data in events if isinstance(data, kind)]

    async def rates(self, agent: str = "desk") -> list[tuple[float, int, str]]:
        found = await self.said(reviews.ReviewRated)
        return [(one.rate, one.step, one.cause) for one in found if one.agent == agent]

    async def rows(self, statement: str) -> list[Any]:
        return await self.database.read(lambda conn: [tuple(row) for row in conn.execute(sa.text(statement))])

    async def close(self) -> None:
        await self.cards.close()
        self.database.close()


def alert(agent: str = "desk", **fields: Any) -> tuple[str, bytes]:
    """Subject and body of a page; `fields` say otherwise."""
    given = {
        "alert_id": new_id(), "rule": "budget_run", "severity": "page", "title": "t", "agent": agent,
        "dedupe_key": "k", **fields,
    }  # fmt: skip
    made = codec.envelope("alert", "raised", governance.AlertRaised(**given), source="/services/test")
    return subjects.alert(agent, "raised"), codec.encode(made)


def halt(key: str = "agent.desk", *, drill: bool = False) -> tuple[str, bytes]:
    """Subject and body of a halt."""
    record = SwitchRecord(state="halted", reason="r", by="Ann", drill=drill)
    data = governance.SwitchMoved(key=key, epoch=1, record=record, written_at=datetime(2026, 1, 1, tzinfo=UTC))
    agent = key.removeprefix("agent.") if key.startswith("agent.") else subjects.FLEET
    made = codec.envelope("switch", "halted", data, source="/services/test")
    return subjects.switch(agent, "halted"), codec.encode(made)


# Fixtures and beginnings of the files that test it


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sampler.db'}"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
async def bed(js: JetStreamContext, nc: Client, url: str) -> AsyncIterator[Bed]:
    migrate(url, "reviewer-sampler")
    bed = Bed(url, nc, js, day("2026-01-01"))
    await bed.card(rate=1.0, taper=(0.5, 0.25), days=30)
    yield bed
    await bed.close()


async def read_well(bed: Bed, runs: int = 130, version: str = "1", first: int = 0) -> None:
    """So many runs of now begin; those drawn are read and pass."""
    ids = [f"run-{version}-{number}" for number in range(first, first + runs)]
    await bed.sampler.on_events([bed.received(run_id, version=version) for run_id in ids])
    await bed.judged(dict.fromkeys(ids, "pass"))


async def tapered(bed: Bed) -> None:
    await read_well(bed)
    bed.time = day("2026-03-01")
    await bed.scheduler.look()
    assert (await bed.rates())[-1] == (0.25, 2, "tapered")

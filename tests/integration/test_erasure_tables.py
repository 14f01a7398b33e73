"""What services hold of a run in tables that no published event fills by itself in a test."""

from pathlib import Path

import sqlalchemy as sa

from logged import NOON
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.runtime.database import Database, migrate
from midwatch_services.pager import erasing as pager
from midwatch_services.pager import queue
from midwatch_services.pager.messages import Message
from midwatch_services.reviewer_sampler import erasing as sampler

PART = ErasureResolved(
    erasure_id="er-0123456789ab", part=1, upto=0, alerts=["a-1"],
    runs=[ErasedRun(agent="desk", run_id="r-1", tickets=["T-planted"])],
)  # fmt: skip


def opened(folder: Path, service: str) -> Database:
    url = f"sqlite:///{folder}/{service}.db"
    migrate(url, service)
    return Database(url, name=service)


def message(id: str, alert_id: str, run_id: str) -> Message:
    return Message(
        id=id, what="page", group_id="g", alert_id=alert_id, severity="page", agent="desk", rule="x",
        title=f"planted {id}", run_id=run_id, started_at=NOON,
    )  # fmt: skip


def test_messages_about_an_erased_run_are_not_sent_any_more_and_hold_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path, "pager")
    waits, other = message("m-1", "a-1", ""), message("m-2", "a-2", "r-2")
    database.write_now(lambda conn: [queue.add(conn, one, ["slack"], NOON) for one in (waits, other)])
    counts = database.write_now(lambda conn: pager.erase(conn, PART))
    database.scrub_now(pager.TABLES)
    rows = database.read_now(
        lambda conn: conn.execute(sa.text("SELECT id, phase, due_at IS NULL FROM pager_deliveries ORDER BY id")).all()
    )
    database.close()
    assert counts == {"alerts": 0, "groups": 0, "messages": 1}
    assert [tuple(row) for row in rows] == [("m-1", "withdrawn", 1), ("m-2", "waiting", 0)]
    raw = (tmp_path / "pager.db").read_bytes()
    assert (b"planted m-1" in raw, b"planted m-2" in raw) == (False, True)


def test_a_review_item_loses_its_ticket_and_says_that_it_was_erased(tmp_path: Path) -> None:
    database = opened(tmp_path, "reviewer-sampler")
    insert = sa.text(
        "INSERT INTO reviewer_sampler_queue (agent, run_id, track, mode, ticket, rate, draw, day, key_hash, "
        "sampled_at, state) VALUES ('desk', :run, 'live', 'live', 'T-planted', 0.2, 0.1, '2026-11-26', 'k', 1, "
        "'waiting')"
    )
    database.write_now(lambda conn: conn.execute(insert, [{"run": "r-1"}, {"run": "r-2"}]))
    assert database.write_now(lambda conn: sampler.erase(conn, PART)) == {"review items": 1}
    rows = database.read_now(
        lambda conn: conn.execute(sa.text("SELECT run_id, ticket, state FROM reviewer_sampler_queue ORDER BY 1")).all()
    )
    database.close()
    assert [tuple(row) for row in rows] == [("r-1", None, "erased"), ("r-2", "T-planted", "waiting")]

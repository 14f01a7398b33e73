"""How many runs waited for a review: what is counted, and that nobody reads the whole queue for it."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kept_helpers import a_review as row
from kept_helpers import insert
from midwatch.contracts import subjects
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.reviewer_sampler import store, tables

DAYS = [100.0, 200.0, 300.0]


@pytest.fixture
def queue(settings: Settings) -> Iterator[Database]:
    yield from filled(settings)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def of_either_kind(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Database]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    yield from filled(settings.model_copy(update={"database_url": url}))


def filled(settings: Settings) -> Iterator[Database]:
    insert(settings, subjects.REVIEWER_SAMPLER, tables.Queued, [
        row("long-over", 10, 99), row("over-at-once", 110, 120), row("over-on-the-third", 50, 250),
        row("over-at-the-very-end", 150, 200), row("waits", 150), row("waits-since-the-end-of-a-day", 200),
        row("later", 350), row("erased", 50, state="erased"), row("drill", 50, mode="drill"),
        row("replayed", 50, track="replay-1"), row("of-another", 250, 350, agent="other"),
    ])  # fmt: skip
    database = Database(settings.database_for(subjects.REVIEWER_SAMPLER), must_exist=True)
    yield database
    database.close()


def test_what_waited_at_each_time_is_counted_for_each_agent(of_either_kind: Database) -> None:
    assert of_either_kind.read_now(lambda conn: store.backlogs(conn, DAYS)) == {"desk": [1, 3, 2], "other": [0, 0, 1]}


def test_what_waited_on_the_last_days_is_read_from_an_index_alone_and_never_from_all_that_ever_was(
    queue: Database,
) -> None:
    asked: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    def plans(conn: Connection) -> list[str]:
        sa.event.listen(conn, "before_cursor_execute", note)
        store.backlogs(conn, DAYS)
        sa.event.remove(conn, "before_cursor_execute", note)
        return [one[3] for text, values in asked for one in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]

    steps = [one for one in queue.read_now(plans) if tables.Queued.__tablename__ in one]
    assert len(steps) == 2
    assert all(one.startswith("SEARCH") and "USING COVERING INDEX" in one for one in steps), steps

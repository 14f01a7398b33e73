"""What is kept of each halt, and how `midwatch switch history` tells it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from midwatch.contracts.control import SwitchRecord
from midwatch.runtime.database import Database, migrate
from midwatch_services.kill_switch import store, tables
from midwatch_services.kill_switch.decide import Halt

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
RECORD = SwitchRecord(state="halted", reason="wrong refunds", by="ann")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/kill.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    migrate(url, "kill-switch")
    found = Database(url)
    yield found
    found.close()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def halted(conn: sa.Connection, key: str, target: str | None, epoch: int, requested: float = 0) -> None:
    store.add_halt(conn, Halt(key, target, epoch, RECORD, at(requested)))


def counted(conn: sa.Connection) -> dict[tuple[str, str, int], tuple[int, int]]:
    rows = conn.execute(sa.select(tables.Halt.__table__))
    return {(row.key, row.target, row.epoch): (row.runs_stopped, row.cases) for row in rows}


def test_runs_and_cases_are_counted_at_the_halt_that_caused_them(database: Database) -> None:
    def work(conn: sa.Connection) -> dict[tuple[str, str, int], tuple[int, int]]:
        halted(conn, "fleet", None, 5)
        halted(conn, "agent.desk", None, 6, 1)
        for key, epoch in (("fleet", 5), ("fleet", 5), ("agent.desk", 6), ("agent.other", 6)):
            store.note_stopped(conn, epoch, key=key, run_id="r1")
        store.note_case(conn, 5, at(2))
        store.note_case(conn, 5, at(1.5))
        return counted(conn)

    assert database.write_now(work) == {("fleet", "", 5): (2, 2), ("agent.desk", "", 6): (1, 0)}


def test_a_run_that_saw_a_later_write_of_its_map_counts_at_its_own_halt(database: Database) -> None:
    def work(conn: sa.Connection) -> dict[tuple[str, str, int], tuple[int, int]]:
        halted(conn, "runs.desk", "r1", 5)
        halted(conn, "runs.desk", "r2", 7, 1)
        halted(conn, "runs.desk", "r3", 7, 1)
        halted(conn, "fleet", None, 6, 0.5)
        store.note_stopped(conn, 7, key="runs.desk", run_id="r1")
        store.note_case(conn, 7, at(2), key="runs.desk", run_id="r3")
        return counted(conn)

    assert database.write_now(work) == {
        ("runs.desk", "r1", 5): (1, 0), ("runs.desk", "r2", 7): (0, 0), ("runs.desk", "r3", 7): (0, 1),
        ("fleet", "", 6): (0, 0),
    }  # fmt: skip


def test_in_a_bucket_made_anew_the_same_epoch_is_another_halt(database: Database) -> None:
    def work(conn: sa.Connection) -> list[int]:
        halted(conn, "agent.desk", None, 5)
        halted(conn, "agent.desk", None, 3, 60)
        store.note_stopped(conn, 5, key="agent.desk", run_id="r1")
        store.note_stopped(conn, 3, key="agent.desk", run_id="r1")
        table = tables.Halt.__table__
        return list(conn.scalars(sa.select(table.c.runs_stopped).order_by(table.c.requested_at)))

    assert database.write_now(work) == [0, 2]


def test_the_first_case_is_the_earliest_whichever_is_noted_first(database: Database) -> None:
    def work(conn: sa.Connection) -> int | None:
        halted(conn, "agent.desk", None, 5)
        for seconds in (3, 1, 2):
            store.note_case(conn, 5, at(seconds))
        return conn.scalar(sa.select(tables.Halt.__table__.c.first_case_at))

    assert database.write_now(work) == int(at(1).timestamp() * 1_000_000)

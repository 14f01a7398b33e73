"""What trips are judged by, as both databases tell it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.runtime.database import Database, migrate
from midwatch_services.kill_switch import store
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.kill_switch.decide import Halt, Write
from midwatch_services.kill_switch.trips import trip_store
from midwatch_services.kill_switch.trips.trip_store import Outcome
from midwatch_services.kill_switch.trips.trips import Ended

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
MINUTE = int(T0.timestamp()) // 60


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/trips.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.KILL_SWITCH)
    opened = Database(url, name=subjects.KILL_SWITCH)
    yield opened
    opened.close()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def halt(key: str, target: str | None, seconds: float, by: str = "ann", *, drill: bool = False) -> Halt:
    record = SwitchRecord(state="halted", by=by, drill=drill)
    return Halt(key, target, int(seconds) + 1, record, at(seconds))


async def test_runs_are_counted_by_the_minute_and_each_once(database: Database) -> None:
    some = [
        Outcome("desk", "r1", at(1), failed=True),
        Outcome("desk", "r2", at(59), failed=False),
        Outcome("desk", "r3", at(61), failed=True),
        Outcome("mail", "r1", at(62), failed=False),
    ]
    assert await database.write(lambda conn: trip_store.add_outcomes(conn, some)) == some
    again = [Outcome("desk", "r1", at(90), failed=False), Outcome("desk", "r4", at(119), failed=True)]
    assert await database.write(lambda conn: trip_store.add_outcomes(conn, again)) == again[1:]
    found = await database.read(lambda conn: trip_store.ended(conn, T0))
    assert sorted(found) == [
        Ended("desk", MINUTE, 2, 1, at(1)),
        Ended("desk", MINUTE + 1, 2, 2, at(119)),
        Ended("mail", MINUTE + 1, 1, 0, None),
    ]
    assert await database.read(lambda conn: trip_store.ended(conn, at(61), "desk")) == [
        Ended("desk", MINUTE + 1, 1, 1, at(119))
    ]
    await database.write(lambda conn: trip_store.forget_outcomes(conn, at(62)))
    assert sum(one.finished for one in await database.read(lambda conn: trip_store.ended(conn, T0))) == 2


async def test_runs_halted_one_by_one_are_those_of_people_and_services_and_no_drills(database: Database) -> None:
    halts = [
        halt("runs.desk", "old", -1),
        halt("runs.desk", "r1", 1),
        halt("runs.desk", "r2", 2, "cost-watchdog/budget_run"),
        halt("runs.desk", "r3", 3, "kill-switch"),
        halt("runs.desk", "r4", 4, drill=True),
        halt("runs.desk", None, 5),
        halt("tools.desk", "refund", 6),
    ]
    await database.write(lambda conn: [store.add_halt(conn, one) for one in halts])
    assert await database.read(lambda conn: trip_store.halted_runs(conn, T0)) == {"desk": {"r1": at(1), "r2": at(2)}}


async def test_a_halt_in_the_place_of_another_is_no_resume(database: Database) -> None:
    stronger = SwitchRecord(state="halted", by="bob")

    def work(conn: Connection) -> None:
        store.add_halt(conn, halt("agent.desk", None, 1))
        store.close_halt(conn, Write("agent.desk", None, 9, at(10)), None, stronger)

    await database.write(work)
    assert await database.read(lambda conn: trip_store.resumes(conn, T0)) == {}


async def test_a_resume_is_the_end_of_a_halt_of_the_agent_or_the_fleet_and_of_no_drill(database: Database) -> None:
    keys = [("agent.desk", False), ("agent.mail", True), ("tools.desk", False), ("fleet", False)]

    resumed = SwitchRecord(state="running", by="ann")

    def work(conn: Connection) -> None:
        for key, drill in keys:
            store.add_halt(conn, halt(key, None, 1, drill=drill))
            store.close_halt(conn, Write(key, None, 9, at(10)), None, resumed)

    await database.write(work)
    assert await database.read(lambda conn: trip_store.resumes(conn, T0)) == {"agent.desk": at(10), "fleet": at(10)}
    assert await database.read(lambda conn: trip_store.resumes(conn, at(10))) == {}


async def test_a_run_whose_name_no_text_column_holds_stops_nothing(database: Database) -> None:
    some = [Outcome("desk", "a\0b", at(1), failed=True), Outcome("desk", "r2", at(2), failed=True)]
    assert await database.write(lambda conn: trip_store.add_outcomes(conn, some)) == some
    assert await database.write(lambda conn: trip_store.add_outcomes(conn, some)) == []


async def test_runs_are_seen_to_that_have_ended(database: Database) -> None:
    ended = [Outcome("desk", "a\0b", at(1), failed=True), Outcome("desk", "r2", at(2), failed=False)]
    await database.write(lambda conn: trip_store.add_outcomes(conn, ended))
    asked = {"a\0b", "r2", "r3"}
    assert await database.read(lambda conn: case_store.not_seen_to(conn, "desk", asked)) == {"r3"}

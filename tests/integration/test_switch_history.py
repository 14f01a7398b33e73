"""What is kept of each halt, and how `midwatch switch history` tells it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import QUICK, WHY, Pod, heard, kill_switch, publish, put, writes_read
from midwatch.contracts import control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import CaseClaim, SwitchRecord
from midwatch.contracts.runs import Finished
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch import store, tables
from midwatch_services.kill_switch.decide import Halt
from midwatch_services.kill_switch.handlers import KillSwitch
from switch_commands import Run, rows, run_switch

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


@pytest.fixture
def run(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return run_switch


@pytest.fixture
def board(js: JetStreamContext) -> Switchboard:
    return Switchboard(js)


async def runs_read(js: JetStreamContext) -> bool:
    return await all_read(js, subjects.RUNS, subjects.KILL_SWITCH)


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
            store.note_stopped(conn, epoch, keys=[key], run_id="r1")
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
        store.note_stopped(conn, 7, keys=["agent.desk", "runs.desk"], run_id="r1")
        store.note_case(conn, 7, at(2), keys=["runs.desk"], run_id="r3")
        return counted(conn)

    assert database.write_now(work) == {
        ("runs.desk", "r1", 5): (1, 0), ("runs.desk", "r2", 7): (0, 0), ("runs.desk", "r3", 7): (0, 1),
        ("fleet", "", 6): (0, 0),
    }  # fmt: skip


def test_in_a_bucket_made_anew_the_same_epoch_is_another_halt(database: Database) -> None:
    def work(conn: sa.Connection) -> list[int]:
        halted(conn, "agent.desk", None, 5)
        halted(conn, "agent.desk", None, 3, 60)
        store.note_stopped(conn, 5, keys=["agent.desk"], run_id="r1")
        store.note_stopped(conn, 3, keys=["agent.desk"], run_id="r1")
        table = tables.Halt.__table__
        return list(conn.scalars(sa.select(table.c.runs_stopped).order_by(table.c.requested_at)))

    assert database.write_now(work) == [0, 2]


@pytest.mark.parametrize("epoch", [10**30, -(10**30)])
def test_an_epoch_that_no_column_holds_breaks_nothing(database: Database, epoch: int) -> None:
    def work(conn: sa.Connection) -> None:
        halted(conn, "agent.desk", None, 5)
        store.note_stopped(conn, epoch, keys=["agent.desk"], run_id="r1")
        store.note_case(conn, epoch, at(1))

    database.write_now(work)
    assert database.read_now(counted)[("agent.desk", "", 5)] == (int(epoch > 0), 0)


def test_the_first_case_is_the_earliest_whichever_is_noted_first(database: Database) -> None:
    def work(conn: sa.Connection) -> int | None:
        halted(conn, "agent.desk", None, 5)
        for seconds in (3, 1, 2):
            store.note_case(conn, 5, at(seconds))
        return conn.scalar(sa.select(tables.Halt.__table__.c.first_case_at))

    assert database.write_now(work) == int(at(1).timestamp() * 1_000_000)


# The service


async def finish(js: JetStreamContext, run_id: str, epoch: int | None, **more: Any) -> None:
    fields = {"resolution": "halted", "epoch": epoch, "halted_by": "ann"} | more
    await publish(js, "finished", run_id, **fields)


async def test_the_proof_says_what_the_halt_stopped_and_the_history_counts_on(js, board, settings, run: Run) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1", "r2"])
    async with kill_switch(settings):
        written = await board.halt_agent("desk", **WHY)
        await finish(js, "r1", written.revision)
        await finish(js, "r1", written.revision, seq=1)
        await finish(js, "r2", written.revision, resolution="fell_back")
        await finish(js, "r3", written.revision, mode="shadow")
        await finish(js, "r4", written.revision, resolution="resolved")
        await finish(js, "r5", written.revision, agent="other")
        await finish(js, "r6", None)
        await eventually(lambda: runs_read(js))
        await pod.say({"agent.desk": written.revision})
        _, contained = await heard(js, "halted", "contained")
        assert contained.runs_stopped == 2
        await finish(js, "r7", written.revision)
        await eventually(lambda: runs_read(js))
        (past,) = rows(await run("switch", "history", "desk", "--json"))
        assert (past["contained"], past["seconds"], past["runs_stopped"]) == (True, contained.seconds, 3)


async def test_a_case_that_an_instance_saw_to_while_kill_switch_was_dead_counts_from_when_it_did(
    js, board, settings, run: Run
) -> None:
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    written = await board.halt_agent("desk", **WHY)
    claim = CaseClaim(
        agent="desk", run_id="r1", by="pod-1", to="own", at=at(0), key="agent.desk", epoch=written.revision
    )
    await js.publish(subjects.key_subject(subjects.CASES, subjects.case_key("desk", "r1")), control.encode(claim))
    claimed = await js.get_last_msg(subjects.key_stream(subjects.CASES), "$KV.MIDWATCH_CASES.desk.r1")
    halted = (await board.read("agent.desk")).written_at
    async with kill_switch(settings):
        await eventually(lambda: all_read(js, subjects.key_stream(subjects.CASES), subjects.KILL_SWITCH_CASES))
    (past,) = rows(await run("switch", "history", "desk", "--json"))
    assert past["cases"] == 1
    assert past["first_case_seconds"] == pytest.approx((claimed.time - halted).total_seconds(), abs=0.001)


async def test_a_run_told_of_again_after_a_crash_is_counted_once(js, board, settings, run: Run) -> None:
    async with kill_switch(settings):
        written = await board.halt_agent("desk", **WHY)
        await finish(js, "r1", written.revision)
        await eventually(lambda: runs_read(js))
    async with kill_switch(settings):
        await finish(js, "r1", written.revision, seq=1)
        await finish(js, "r2", written.revision)
        await eventually(lambda: runs_read(js))
    (past,) = rows(await run("switch", "history", "desk", "--json"))
    assert past["runs_stopped"] == 2


async def test_a_run_that_is_heard_of_before_its_halt_is_counted(nc, js, board, settings, run: Run) -> None:
    url = settings.database_for("kill-switch")
    migrate(url, "kill-switch")
    database = Database(url)
    service = KillSwitch(nc, js, database, Outbox(database, store.PREFIX, js), lambda: datetime.now(UTC))
    await service.load()
    written = await board.halt_agent("desk", **WHY)
    common: dict[str, Any] = {"run_id": "r1", "agent": "desk", "version": "1", "mode": "live", "seq": 1}
    data = Finished(**common, resolution="halted", epoch=written.revision, halted_by="ann")
    event = RunEvent("desk", "finished", "e1", datetime.now(UTC), "/agents/desk/pod-1", data)
    await service.on_runs([Received(event, b"", "", None, 1, 1, datetime.now(UTC), "")])
    database.close()
    (past,) = rows(await run("switch", "history", "desk", "--json"))
    assert (past["epoch"], past["runs_stopped"]) == (written.revision, 1)


async def test_who_confirms_late_is_in_the_history_while_others_are_missing(js, board, settings, run: Run) -> None:
    first, second = Pod(js, "pod-1"), Pod(js, "pod-2")
    await first.say()
    await second.say()
    async with kill_switch(settings):
        written = await board.halt_agent("desk", **WHY)
        await heard(js, "halted", "unconfirmed")
        await first.say({"agent.desk": written.revision})

        async def late() -> bool:
            (past,) = rows(await run("switch", "history", "--json"))
            return {one["instance"]: one["state"] for one in past["instances"]}["pod-1"] == "applied"

        await eventually(late)
    shown = (await run("switch", "history", "--epoch", str(written.revision))).stdout
    assert "NOT contained: desk/pod-2" in shown
    assert "desk/pod-1 has applied it" in shown


async def test_a_proof_that_was_revoked_stays_readable(js, board, settings, run: Run) -> None:
    pod = Pod(js)
    await pod.say()
    async with kill_switch(settings):
        written = await board.halt_agent("desk", **WHY)
        await pod.say({"agent.desk": written.revision})
        _, contained = await heard(js, "halted", "contained")
        await asyncio.sleep(QUICK.grace.total_seconds())
        await publish(js, "tool_called")
        await heard(js, "halted", "contained", "revoked")
    (past,) = rows(await run("switch", "history", "--json"))
    assert (past["phase"], past["contained"], past["seconds"]) == ("revoked", False, contained.seconds)
    assert [one["instance"] for one in past["instances"]] == ["pod-1"]
    assert "desk called the tool lookup" in past["revoked"]


# The command


async def test_a_halt_by_plain_kv_put_while_everything_of_ours_was_down_is_in_the_history(
    js, settings, run: Run
) -> None:
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    folder = settings.home / "data"
    folder.rename(settings.home / "down")
    revision = await put(js, "agent.desk", b'{"state":"halted","reason":"wrong refunds","by":"ann"}')
    await put(js, "agent.desk", b'{"state":"running","reason":"mended","by":"bob"}')
    (settings.home / "down").rename(folder)
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    (past,) = rows(await run("switch", "history", "--json"))
    assert (past["key"], past["epoch"], past["record"]["by"], past["record"]["reason"]) == (
        "agent.desk", revision, "ann", "wrong refunds",
    )  # fmt: skip
    assert (past["ended_by"]["state"], past["ended_by"]["by"], past["ended_epoch"]) == ("running", "bob", revision + 1)


async def test_it_lists_the_newest_first_of_an_agent_of_the_fleet_or_of_all(js, board, settings, run: Run) -> None:
    await board.halt_agent("desk", **WHY)
    await board.halt_tool("desk", "refund", **WHY)
    await board.halt_agent("other", **WHY)
    await board.halt_fleet(**WHY)
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))

    async def keys(*arguments: str) -> list[str]:
        return [row["key"] for row in rows(await run("switch", "history", *arguments, "--json"))]

    assert await keys() == ["fleet", "agent.other", "tools.desk", "agent.desk"]
    assert await keys("--limit", "2") == ["fleet", "agent.other"]
    assert await keys("desk") == ["tools.desk", "agent.desk"]
    assert await keys("--fleet") == ["fleet"]
    assert await keys("desk", "--fleet") == ["fleet", "tools.desk", "agent.desk"]


async def test_it_says_what_ended_each_halt(js, board, settings, run: Run) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    first = await board.halt_agent("desk", reason="for a while", by="ann", expires_at=soon)
    second = await board.halt_agent("desk", reason="for good", by="bob")
    await board.resume_agent("desk", reason="mended", by="eve")
    await board.halt_agent("desk", reason="again", by="ann", expires_at=soon)
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    shown = (await run("switch", "history")).stdout.splitlines()[1:]
    assert f"stands until {soon:%Y-%m-%d %H:%M:%S}" in shown[0]
    assert "lifted by eve: mended" in shown[1]
    assert f"replaced at epoch {second.revision} by bob" in shown[2]
    whole = (await run("switch", "history", "--epoch", str(first.revision))).stdout
    assert f"desk: halted {datetime.now(UTC):%Y-%m-%d}" in whole
    assert f"until      {soon:%Y-%m-%d %H:%M:%S} UTC" in whole


async def test_what_others_wrote_is_clean(js, settings, run: Run) -> None:
    revision = await put(js, "agent.desk", b'{"state":"halted","reason":"\\u001b[31mred","by":"[bold]ann"}')
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    for shown in (await run("switch", "history"), await run("switch", "history", "--epoch", str(revision))):
        assert "\x1b" not in shown.stdout
        assert "[bold]ann" in shown.stdout


async def test_without_a_database_one_line_says_what_to_do(run: Run) -> None:
    result = await run("switch", "history")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "start the services with `midwatch up`" in result.stderr


async def test_an_epoch_that_nobody_knows_is_refused(js, settings, run: Run) -> None:
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    result = await run("switch", "history", "--epoch", "99")
    assert result.exit_code == 1
    assert "no halt of epoch 99 is known" in result.stderr

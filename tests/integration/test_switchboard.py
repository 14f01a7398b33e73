"""The compare-and-set writer of the switch, on a real server."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import control, subjects
from midwatch.errors import Permanent, Temporary
from midwatch.runtime import switchboard
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import NoSwitch, Scope, Switchboard, UnreadableMap

WHY = {"reason": "wrong refunds", "by": "ann"}
THEN = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


@pytest.fixture
def board(js: JetStreamContext) -> Switchboard:
    return Switchboard(js)


async def put(js: JetStreamContext, key: str, value: bytes, **headers: str) -> None:
    await js.publish(subjects.key_subject(subjects.SWITCH, key), value, headers=headers or None)


async def delete(js: JetStreamContext, key: str) -> None:
    await put(js, key, b"", **{"KV-Operation": "DEL"})


async def test_a_halt_stands_at_its_key_with_reason_and_author(board: Switchboard) -> None:
    written = await board.halt_agent("desk", **WHY, fallback="agent:simple")
    entry = await board.read("agent.desk")
    record = entry.record()
    assert written.changed
    assert (entry.revision, record) == (written.revision, written.record)
    assert record is not None
    assert (record.state, record.reason, record.by, record.fallback) == (
        "halted",
        "wrong refunds",
        "ann",
        "agent:simple",
    )


async def test_of_twenty_halts_at_once_none_is_lost(board: Switchboard) -> None:
    runs = [f"run-{number}" for number in range(20)]
    written = await asyncio.gather(*(board.halt_run("desk", run, **WHY) for run in runs))
    records = (await board.read("runs.desk")).map()
    assert records is not None
    assert {run for run, record in records.items() if record.state == "halted"} == set(runs)
    assert len({one.revision for one in written}) == 20


async def test_a_halted_run_is_left_as_it_is(board: Switchboard) -> None:
    first = await board.halt_run("desk", "r1", **WHY)
    second = await board.halt_run("desk", "r1", reason="again", by="bob")
    assert not second.changed
    assert (second.revision, second.record) == (first.revision, first.record)


async def test_a_halt_that_is_weaker_than_the_one_that_stands_changes_nothing(board: Switchboard) -> None:
    await board.halt_agent("desk", **WHY)
    weaker = await board.halt_agent("desk", reason="for a while", by="bob", expires_at=THEN)
    assert not weaker.changed
    assert weaker.record.expires_at is None


async def test_a_stronger_halt_takes_the_place_of_one_that_expires(board: Switchboard) -> None:
    await board.halt_agent("desk", **WHY, expires_at=THEN, fallback="agent:simple")
    stronger = await board.halt_agent("desk", reason="for good", by="bob")
    assert stronger.changed
    assert (stronger.record.expires_at, stronger.record.by) == (None, "bob")
    assert stronger.record.fallback == "agent:simple"


async def test_a_drill_does_not_outlive_an_operators_halt(board: Switchboard, js: JetStreamContext) -> None:
    await put(js, "agent.desk", b'{"state":"halted","drill":true}')
    written = await board.halt_agent("desk", **WHY)
    assert written.changed
    assert not written.record.drill


async def test_a_decision_older_than_the_resume_is_not_applied(board: Switchboard) -> None:
    await board.halt_run("desk", "r1", **WHY, at=THEN)
    await board.resume_run("desk", "r1", **WHY, at=THEN + timedelta(seconds=9))
    late = await board.halt_run("desk", "r1", **WHY, at=THEN + timedelta(seconds=5))
    assert not late.changed
    assert late.record.state == "running"
    assert (await board.halt_run("desk", "r1", **WHY, at=THEN + timedelta(seconds=10))).changed


async def test_resuming_the_fleet_does_not_resume_an_agent(board: Switchboard) -> None:
    await board.halt_fleet(**WHY)
    await board.halt_agent("desk", **WHY)
    await board.resume_fleet(**WHY)
    fleet, agent = (await board.read("fleet")).record(), (await board.read("agent.desk")).record()
    assert fleet is not None
    assert agent is not None
    assert (fleet.state, agent.state) == ("running", "halted")


async def test_a_resume_lifts_one_tool_and_keeps_the_other(board: Switchboard) -> None:
    await board.halt_tool("desk", "refund", **WHY)
    await board.halt_tool("desk", "mail", **WHY)
    await board.resume_tool("desk", "refund", **WHY)
    records = (await board.read("tools.desk")).map()
    assert records is not None
    assert {name: record.state for name, record in records.items()} == {"refund": "running", "mail": "halted"}


async def test_what_is_not_halted_is_not_resumed(board: Switchboard) -> None:
    assert not (await board.resume_run("desk", "r1", **WHY)).changed
    assert not (await board.resume_fleet(**WHY)).changed  # `topology apply` wrote it
    assert (await board.read("runs.desk")).revision == 0


@pytest.mark.parametrize("value", [b"garbage", b'{"state":"off"}', b"", None])
async def test_an_operator_resumes_a_key_that_is_unreadable_or_deleted(
    board: Switchboard, js: JetStreamContext, value: bytes | None
) -> None:
    await (delete(js, "agent.desk") if value is None else put(js, "agent.desk", value))
    assert (await board.resume_agent("desk", **WHY)).record.state == "running"


async def test_a_deleted_key_is_halted_again_in_place(board: Switchboard, js: JetStreamContext) -> None:
    await board.halt_run("desk", "r1", **WHY)
    await delete(js, "runs.desk")
    assert (await board.halt_run("desk", "r2", **WHY)).changed
    assert set((await board.read("runs.desk")).map() or ()) == {"r2"}


async def test_an_unreadable_map_is_never_overwritten(board: Switchboard, js: JetStreamContext) -> None:
    await put(js, "runs.desk", b"[1]")
    halted = await board.halt_run("desk", "r1", **WHY)
    assert (halted.changed, halted.record.state) == (False, "halted")
    with pytest.raises(UnreadableMap, match=r"nats kv put MIDWATCH_SWITCH runs\.desk '\{\}'"):
        await board.resume_run("desk", "r1", **WHY)
    assert (await board.read("runs.desk")).value == b"[1]"


async def test_records_of_others_keep_every_byte(board: Switchboard, js: JetStreamContext) -> None:
    other = b'{"state": "halted", "of_a_later_version": [1, 2]}'
    await put(js, "runs.desk", b'{"r0": ' + other + b"}")
    await board.halt_run("desk", "r1", **WHY)
    assert other in ((await board.read("runs.desk")).value or b"")


async def test_only_the_halt_that_expired_is_lifted(board: Switchboard) -> None:
    first = await board.halt_agent("desk", **WHY, expires_at=THEN)
    await board.halt_agent("desk", reason="for good", by="bob")
    assert not await board.expire("agent.desk", None, first.record, by="kill-switch")
    second = await board.halt_run("desk", "r1", **WHY, expires_at=THEN)
    assert await board.expire("runs.desk", "r1", second.record, by="kill-switch")
    agent, runs = (await board.read("agent.desk")).record(), (await board.read("runs.desk")).map()
    assert agent is not None
    assert runs is not None
    assert (agent.state, runs["r1"].state) == ("halted", "running")


@pytest.mark.parametrize("scope", [Scope("desk"), Scope("desk", tool="refund"), Scope("desk", run_id="r1")])
async def test_a_drill_takes_back_its_own_halt(board: Switchboard, scope: Scope) -> None:
    await board.resume_agent("desk", **WHY)
    drill = await board.halt(scope, **WHY, drill=True, expires_at=THEN)
    await board.halt(Scope("desk", tool="mail"), **WHY)
    await board.halt(Scope("desk", run_id="r9"), **WHY)
    assert await board.restore(scope, drill, by="drill", reason="over")
    entry = await board.read(scope.key)
    record = entry.record() if scope.target is None else (entry.map() or {})[scope.target]
    assert record is not None
    assert (drill.record.drill, record.state, record.by) == (True, "running", "drill")
    assert not await board.restore(scope, drill, by="drill", reason="twice")


@pytest.mark.parametrize("scope", [Scope("desk"), Scope("desk", tool="refund")])
async def test_a_drill_takes_back_nothing_that_was_written_over_it(board: Switchboard, scope: Scope) -> None:
    await board.resume_agent("desk", **WHY)
    drill = await board.halt(scope, reason="drill", by="drill", drill=True, expires_at=THEN)
    person = await board.halt(scope, **WHY)
    assert (person.changed, person.record.by, person.record.drill, person.record.expires_at) == (
        True, "ann", False, None,
    )  # fmt: skip
    assert not await board.restore(scope, drill, by="drill", reason="over")
    assert not (await board.halt(scope, **WHY)).changed


async def test_a_drill_takes_back_no_copy_of_its_record_that_somebody_else_wrote(
    board: Switchboard, js: JetStreamContext
) -> None:
    await board.resume_agent("desk", **WHY)
    drill = await board.halt_agent("desk", **WHY, drill=True)
    await put(js, "agent.desk", control.encode(drill.record))
    assert not await board.restore(Scope("desk"), drill, by="drill", reason="over")


@pytest.mark.parametrize("drill", [True, False])
async def test_a_drill_is_refused_on_top_of_a_halt_and_gives_nothing_back(board: Switchboard, drill: bool) -> None:
    await board.resume_agent("desk", **WHY)
    await board.halt_agent("desk", **WHY, expires_at=THEN, drill=drill)
    asked = await board.halt_agent("desk", reason="drill", by="drill", drill=True)
    assert (asked.changed, asked.record.by, asked.record.expires_at) == (False, "ann", THEN)
    assert not await board.restore(Scope("desk"), asked, by="drill", reason="over")


@pytest.mark.parametrize("value", [b"garbage", None])
async def test_a_drill_is_refused_where_the_key_is_not_running_anyway(
    board: Switchboard, js: JetStreamContext, value: bytes | None
) -> None:
    await (delete(js, "agent.desk") if value is None else put(js, "agent.desk", value))
    asked = await board.halt_agent("desk", reason="drill", by="drill", drill=True)
    assert (asked.changed, asked.record.state) == (False, "halted")


async def test_pruning_removes_only_old_records_of_finished_runs(board: Switchboard) -> None:
    await board.halt_run("desk", "old-finished", **WHY, at=THEN)
    await board.halt_run("desk", "old-running", **WHY, at=THEN)
    await board.halt_run("desk", "new-finished", **WHY)
    assert await board.prune_runs("desk", {"old-finished", "new-finished", "unknown"}) == 1
    assert set((await board.read("runs.desk")).map() or ()) == {"old-running", "new-finished"}
    assert await board.prune_runs("nobody", {"r1"}) == 0


async def test_a_map_that_would_not_fit_is_refused_with_a_mend(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "_MAP_LIMIT", 200)
    await board.halt_run("desk", "r1", **WHY)
    with pytest.raises(Permanent, match="halt the agent instead"):
        await board.halt_run("desk", "r2", **WHY)


async def test_a_long_reason_is_cut(board: Switchboard) -> None:
    assert len((await board.halt_run("desk", "r1", reason="x" * 9000, by="ann")).record.reason) == 500


async def test_writes_are_read_in_order_and_all_keys_are_listed(board: Switchboard, js: JetStreamContext) -> None:
    await board.halt_agent("desk", **WHY)
    await delete(js, "agent.desk")
    await board.halt_fleet(**WHY)
    assert [(one.key, one.value is None) for one in await board.writes(1)] == [
        ("agent.desk", False), ("agent.desk", True), ("fleet", False),
    ]  # fmt: skip
    assert {one.key: one.value is None for one in await board.entries()} == {"agent.desk": True, "fleet": False}
    assert [one.revision for one in await board.writes(3, limit=5)] == [4]


async def test_without_a_bucket_the_error_names_the_mend(nc: Client) -> None:
    with pytest.raises(NoSwitch, match="midwatch topology apply"):
        await Switchboard(nc.jetstream()).halt(Scope(), **WHY)


async def test_a_halt_survives_a_restart_of_the_server_in_its_midst(
    board: Switchboard, nats_server: NatsServer, js: JetStreamContext
) -> None:
    nats_server.kill()
    halting = asyncio.create_task(board.halt_agent("desk", **WHY))
    await nats_server.restart()
    written = await halting
    assert control.decode_record((await board.read("agent.desk")).value or b"") == written.record


async def test_a_server_that_does_not_answer_is_temporary(
    board: Switchboard, nats_server: NatsServer, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "_REQUEST", 0.1)
    monkeypatch.setattr(switchboard, "_PATIENCE", 0.2)
    nats_server.kill()
    with pytest.raises(Temporary, match="was not written"):
        await board.halt_agent("desk", **WHY)
    await nats_server.restart()
    await eventually(lambda: nc.stats["reconnects"])  # so that the client can say goodbye


async def test_many_runs_are_halted_by_one_write_that_leaves_older_halts_alone(board: Switchboard) -> None:
    first = await board.halt_run("desk", "r1", reason="a loop", by="cost-watchdog")
    written = await board.halt_runs("desk", ["r1", "r2", "r3"], **WHY)
    records = (await board.read("runs.desk")).map()
    assert records is not None
    assert written.revision == first.revision + 1
    assert {run: (record.state, record.by) for run, record in records.items()} == {
        "r1": ("halted", "cost-watchdog"), "r2": ("halted", "ann"), "r3": ("halted", "ann"),
    }  # fmt: skip
    again = await board.halt_runs("desk", ["r2", "r3"], **WHY)
    assert (again.changed, again.revision) == (False, written.revision)


async def test_many_runs_in_a_map_that_cannot_be_read_are_halted_already(
    board: Switchboard, js: JetStreamContext
) -> None:
    await put(js, "runs.desk", b"no map")
    written = await board.halt_runs("desk", ["r1"], **WHY)
    assert (written.changed, written.record.state) == (False, "halted")

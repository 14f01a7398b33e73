"""`midwatch halt`, `resume` and `switch` against a real server, with every service of ours dead."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js import JetStreamContext

import midwatch
from helpers import eventually
from kill_switch_helpers import WHY, Pod, kill_switch, publish, put
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, CaseClaim, Route
from midwatch.contracts.governance import CaseOpened
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import Switchboard
from switch_commands import Run, rows, run_switch


@pytest.fixture
def run(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return run_switch


@pytest.fixture
def board(js: JetStreamContext) -> Switchboard:
    return Switchboard(js)


async def apply_card(js: JetStreamContext, agent: str = "desk") -> None:
    card = Card(agent=agent, owner="o", purpose="p", can=["c"])
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))


async def obey(js: JetStreamContext, pod: Pod, key: str) -> None:
    """The instance applies the next halt of `key` and says so."""
    board = Switchboard(js)
    before = (await board.read(key)).revision
    revision = await eventually(lambda: _later(board, key, before))
    await pod.say({key: revision})


async def _later(board: Switchboard, key: str, before: int) -> int:
    revision = (await board.read(key)).revision
    return revision if revision > before else 0


async def test_a_halt_is_written_with_who_and_why(js, board, run: Run) -> None:
    await apply_card(js)
    result = await run("halt", "desk", "--reason", "wrong refunds", "--by", "ann", "--fallback", "agent:simple")
    entry = await board.read("agent.desk")
    record = entry.record()
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"desk: halted at epoch {entry.revision} of agent.desk" in result.stdout
    assert (record.state, record.reason, record.by, record.fallback) == (
        "halted",
        "wrong refunds",
        "ann",
        "agent:simple",
    )


@pytest.mark.parametrize(
    ("arguments", "key", "target"),
    [
        (["--fleet"], "fleet", None),
        (["desk"], "agent.desk", None),
        (["desk", "--tool", "refund"], "tools.desk", "refund"),
        (["desk", "--run", "r1"], "runs.desk", "r1"),
    ],
)
async def test_each_scope_is_halted_and_resumed_at_its_key(js, board, run: Run, arguments, key, target) -> None:
    for verb, state in (("halt", "halted"), ("resume", "running")):
        (row,) = rows(await run(verb, *arguments, "--reason", "r", "--json"))
        entry = await board.read(key)
        record = entry.record() if target is None else entry.map()[target]
        assert (row["key"], row["target"], row["epoch"], row["changed"]) == (key, target, entry.revision, True)
        assert (row["record"]["state"], record.state) == (state, state)


async def test_an_expiry_is_written(js, board, run: Run) -> None:
    await run("halt", "desk", "--reason", "r", "--expires", "30m")
    record = (await board.read("agent.desk")).record()
    assert timedelta(minutes=29) < record.expires_at - datetime.now(UTC) <= timedelta(minutes=30)


async def test_a_halt_that_stands_already_is_named_and_left(js, board, run: Run) -> None:
    await board.halt_agent("desk", reason="first", by="bob")
    result = await run("halt", "desk", "--reason", "second")
    assert result.exit_code == 0
    assert "halted already by bob (first)" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["halt", "--reason", "r"],
        ["halt", "desk", "--fleet", "--reason", "r"],
        ["halt", "a.b", "--reason", "r"],
        ["halt", "--fleet", "--tool", "refund", "--reason", "r"],
        ["halt", "desk", "--tool", "t", "--run", "r1", "--reason", "r"],
        ["halt", "desk"],
        ["halt", "desk", "--reason", "r", "--expires", "30"],
        ["halt", "desk", "--reason", "r", "--fallback", "nobody"],
        ["resume", "desk", "--fleet", "--reason", "r"],
    ],
)
async def test_what_cannot_be_meant_is_a_usage_error_and_writes_nothing(js, board, run: Run, arguments) -> None:
    assert (await run(*arguments)).exit_code == 2
    assert [entry.key for entry in await board.entries()] == ["fleet"]


async def test_an_agent_without_a_card_is_halted_with_a_warning(js, board, run: Run) -> None:
    result = await run("halt", "desk", "--reason", "r")
    assert result.exit_code == 0
    assert "no scope card is applied for desk" in result.stderr
    assert (await board.read("agent.desk")).record().state == "halted"


async def test_wait_prints_each_confirmation_and_ends_with_the_proof(js, run: Run) -> None:
    await apply_card(js)
    first, second = Pod(js, "pod-1"), Pod(js, "pod-2")
    await first.say(runs_in_flight=["r1"])
    await second.say()
    result, *_ = await asyncio.gather(
        run("halt", "desk", "--reason", "r", "--wait"), obey(js, first, "agent.desk"), obey(js, second, "agent.desk")
    )
    assert result.exit_code == 0
    assert "desk/pod-1 has applied it, nothing moves, after 0." in result.stdout
    assert "desk: contained, 2 instances in 0." in result.stdout


async def test_wait_exits_3_and_names_who_has_not_confirmed(js, run: Run) -> None:
    first, second = Pod(js, "pod-1"), Pod(js, "pod-2")
    await first.say()
    await second.say(runs_in_flight=["r1"])
    result, *_ = await asyncio.gather(
        run("halt", "desk", "--reason", "r", "--wait", "0.5", "--json"), obey(js, first, "agent.desk")
    )
    _, report = rows(result)
    assert result.exit_code == 3
    assert (report["contained"], report["seconds"]) == (False, None)
    assert {one["instance"]: one["state"] for one in report["instances"]} == {
        "pod-1": "applied",
        "pod-2": "unconfirmed",
    }


async def test_a_tool_that_drains_keeps_the_halt_from_being_contained(js, run: Run) -> None:
    pod = Pod(js)
    await pod.say(draining=["r1"])

    async def drain() -> None:
        revision = await eventually(lambda: _later(Switchboard(js), "agent.desk", 0))
        await pod.say({"agent.desk": revision}, draining=["r1"])

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait", "0.6"), drain())
    assert result.exit_code == 3
    assert "desk/pod-1 has applied it; draining: r1" in result.stdout
    assert "desk: NOT contained within 0.6 s" in result.stdout


async def test_an_instance_that_runs_on_is_heard_after_the_server_forgot_it(js, run: Run) -> None:
    await js.delete_stream(subjects.PRESENCE)  # as a restart of a lone server does, for it is in memory
    pod = Pod(js)

    async def go_on() -> None:
        said = control.Presence(agent="desk", instance=pod.name, version="1", host="h", pid=7, applied={})
        for _ in range(8):
            await js._nc.publish(subjects.presence("desk", pod.name), control.encode(said))
            await asyncio.sleep(0.25)

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait", "1.8"), go_on())
    assert result.exit_code == 3
    assert "desk/pod-1 has not confirmed" in result.stdout


async def test_wait_says_when_somebody_lifts_the_halt_meanwhile(js, board, run: Run) -> None:
    await Pod(js).say()

    async def lift() -> None:
        await eventually(lambda: _later(board, "agent.desk", 0))
        await board.resume_agent("desk", reason="mine", by="bob")

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait"), lift())
    assert result.exit_code == 3
    assert "lifted meanwhile by bob (mine)" in result.stdout


async def test_a_resume_of_what_runs_already_says_who_resumed_it(js, board, run: Run) -> None:
    await board.halt_agent("desk", **WHY)
    await board.resume_agent("desk", reason="mended", by="bob")
    result = await run("resume", "desk", "--reason", "r")
    assert result.exit_code == 0
    assert "nothing was changed; resumed by bob (mended)" in result.stdout


async def test_resuming_the_fleet_names_who_stays_halted(js, board, run: Run) -> None:
    await board.halt_agent("desk", **WHY)
    await board.halt_fleet(**WHY)
    result = await run("resume", "--fleet", "--reason", "r")
    assert "desk: still halted by its own key" in result.stdout
    assert (await board.read("agent.desk")).record().state == "halted"


async def test_resuming_an_agent_says_that_the_fleet_is_halted(js, board, run: Run) -> None:
    await board.halt_fleet(**WHY)
    await board.halt_agent("desk", **WHY)
    assert "desk: still halted by fleet" in (await run("resume", "desk", "--reason", "r")).stdout


async def test_switch_shows_who_is_armed_and_why_not(js, board, run: Run) -> None:
    await board.resume_agent("desk", **WHY)
    standing = {"fleet": 1, "agent.desk": 2, "tools.desk": 0, "runs.desk": 0}
    await Pod(js, "armed").say(standing, runs_in_flight=["r1"])
    await Pod(js, "behind").say(standing | {"agent.desk": 1})
    await Pod(js, "gone").say(standing, leaving=True)
    shown = {row["instance"]: row for row in rows(await run("switch", "--json"))}
    assert set(shown) == {"armed", "behind"}
    assert (shown["armed"]["armed"], shown["armed"]["runs_in_flight"]) == (True, ["r1"])
    assert shown["armed"]["epochs"] == standing
    assert not shown["behind"]["armed"]
    assert shown["behind"]["why_not"] == (
        "has not yet obeyed the last change of the switch (has applied agent.desk at epoch 1, which stands at 2)"
    )


async def test_switch_shows_agents_that_do_not_run_and_cleans_what_others_wrote(js, run: Run) -> None:
    await put(js, "agent.desk", b'{"state":"halted","reason":"\\u001b[31mred [bold]","by":"ann"}')
    result = await run("switch")
    assert result.exit_code == 0
    assert "none runs" in result.stdout
    assert "HALTED" in result.stdout
    assert "\x1b" not in result.stdout
    assert "red [bold]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["halt", "desk", "--reason", "r"], "fall back by themselves once their lease (5 s unless their card says"),
        (["resume", "desk", "--reason", "r"], "The resume was not acknowledged"),
        (["switch"], "What is armed is not known"),
    ],
)
async def test_without_nats_it_says_what_still_happens_and_exits_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://ann:secret@127.0.0.1:9")
    result = await run(*arguments)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "secret" not in result.stderr


async def test_an_agent_of_the_sdk_is_armed_and_then_contained(js, board, run: Run, nats_server: NatsServer) -> None:
    await apply_card(js)
    await board.resume_agent("desk", **WHY)
    async with midwatch.connect(nats_server.url) as mw:
        desk = mw.agent("desk", version="1", fallback=_to_human)
        async with desk.run(input="Where is my refund?") as work:
            (row,) = await eventually(lambda: _armed(run))
            assert row["runs_in_flight"] == [work.run_id]
            halting = asyncio.create_task(run("halt", "desk", "--reason", "r", "--wait"))
            await work.model(asyncio.sleep, 30)
        assert work.result == "a person will answer"
        result = await halting
    assert result.exit_code == 0, result.output
    assert "desk: contained, 1 instance in 0." in result.stdout


async def _armed(run: Run) -> list[dict[str, Any]]:
    return [row for row in rows(await run("switch", "--json")) if row["armed"] and row["runs_in_flight"]]


async def _to_human(_: Any) -> str:
    return "a person will answer"


# What a halt sets off


async def claim(js: JetStreamContext, run_id: str, epoch: int, *, to: str = "human", key: str = "agent.desk") -> None:
    said = CaseClaim(agent="desk", run_id=run_id, by="pod-1", to=to, at=datetime.now(UTC), key=key, epoch=epoch)
    await js.publish(subjects.key_subject(subjects.CASES, subjects.case_key("desk", run_id)), control.encode(said))


async def opened(js: JetStreamContext, run_id: str, epoch: int) -> None:
    case = CaseOpened(
        case_id=subjects.case_id("desk", run_id), agent="desk", run_id=run_id, to="human", reason="r",
        opened_by="kill-switch", key="agent.desk", epoch=epoch,
    )  # fmt: skip
    body = codec.encode(codec.envelope("case", "opened", case, source="/services/kill-switch"))
    await js.publish(subjects.case("desk", "opened"), body)


async def test_wait_tells_of_the_first_case_and_of_the_runs_that_were_stopped(js, run: Run) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1", "r2"])

    async def stop() -> None:
        revision = await eventually(lambda: _later(Switchboard(js), "agent.desk", 0))
        await claim(js, "r0", revision - 1)  # of an earlier halt
        await pod.say({"agent.desk": revision}, draining=["r1"])
        for run_id in ("r1", "r2"):
            await publish(js, "finished", run_id, resolution="halted", epoch=revision, halted_by="ann")
        await pod.say({"agent.desk": revision})
        await claim(js, "r1", revision)  # after containment: the command lingers for it
        await opened(js, "r1", revision)

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait"), stop())
    assert result.exit_code == 0
    case = subjects.case_id("desk", "r1")
    assert re.search(rf"first case at the fallback after [01]\.\d\d s: {case} \(human\)", result.stdout)
    assert "; 2 runs stopped, 1 case so far" in result.stdout
    assert result.stdout.count("first case") == 1


@pytest.mark.parametrize("by", ["claim", "opening"])
async def test_json_has_the_first_case_whoever_tells_of_it(js, run: Run, by: str) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1"])

    async def stop() -> None:
        revision = await eventually(lambda: _later(Switchboard(js), "agent.desk", 0))
        await (claim(js, "r1", revision, to="own") if by == "claim" else opened(js, "r1", revision))
        await pod.say({"agent.desk": revision})

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait", "--json"), stop())
    _, proof = rows(result)
    assert (proof["cases"], proof["first_case"]["case_id"]) == (1, subjects.case_id("desk", "r1"))
    assert proof["first_case"]["to"] == {"claim": "own", "opening": "human"}[by]
    assert 0 < proof["first_case"]["seconds"] < 5


async def test_runs_in_threads_are_said_to_stop_before_their_next_call(js, run: Run) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1"], blocking=True)

    async def apply() -> None:
        revision = await eventually(lambda: _later(Switchboard(js), "agent.desk", 0))
        await pod.say({"agent.desk": revision}, runs_in_flight=["r1"], blocking=True)

    result, _ = await asyncio.gather(run("halt", "desk", "--reason", "r", "--wait", "0.6"), apply())
    assert result.exit_code == 3
    assert "desk/pod-1 has applied it; running: r1, which stops before its next call (threads)" in result.stdout


async def test_where_an_instance_is_missing_the_command_to_write_it_off_is_named(js, run: Run) -> None:
    await Pod(js).say()
    result = await run("halt", "desk", "--reason", "r", "--wait", "0.3")
    assert "if that process is dead: midwatch switch write-off pod-1 --agent desk --reason" in result.stdout


async def test_no_command_is_printed_for_an_instance_with_a_name_that_a_shell_reads_as_more(js, run: Run) -> None:
    await Pod(js, name="x;id").say()
    result = await run("halt", "desk", "--reason", "r", "--wait", "0.3")
    assert "desk/x;id has not confirmed" in result.stdout
    assert "write-off" not in result.stdout


async def test_switch_shows_the_stage_and_who_has_lost_control(js, run: Run) -> None:
    await js.publish(
        subjects.key_subject(subjects.ROUTES, "desk"), control.encode(Route(stage="canary", traffic=0.1, salt="s"))
    )
    await js.publish(subjects.key_subject(subjects.ROUTES, "other"), b"garbage")
    await Pod(js).say(without_control="fall_back")
    await Pod(js, agent="other").say()
    shown = (await run("switch")).stdout
    assert "canary 0.1" in shown
    assert "unreadable: does not act" in shown
    assert "has lost control and falls back" in shown


async def test_switch_lists_agents_without_presence_with_their_runs(js, settings, run: Run) -> None:
    async with kill_switch(settings):
        await publish(js, "started", "r1", agent="quiet")
        stray = await eventually(lambda: _stray(run))
    assert (stray["agent"], stray["armed"], stray["runs_in_flight"]) == ("quiet", False, ["r1"])
    assert "sends no presence" in (await run("switch")).stdout


async def _stray(run: Run) -> Any:
    return next((row for row in rows(await run("switch", "--json")) if row["instance"] is None), None)

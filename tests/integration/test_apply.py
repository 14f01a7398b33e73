"""`midwatch apply` on a real server: cards are kept, and a switch that was ever written is left alone."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from typer.testing import CliRunner, Result

from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card
from midwatch.runtime.nats_server import NatsServer
from midwatch_services.cards import bucket, load
from midwatch_services.commands import cards

CARD = "agent: desk\nowner: Ann\npurpose: Answers tickets.\ncan: [Look up an order]\n"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", nats_server.url)
    Path("desk.yaml").write_text(CARD)


async def midwatch(*arguments: str) -> Result:
    app = typer.Typer()
    cards.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def last(js: JetStreamContext, name: str, key: str) -> bytes:
    message = await js.get_last_msg(subjects.key_stream(name), subjects.key_subject(name, key))
    return message.data or b""


async def messages(js: JetStreamContext, name: str) -> int:
    return int((await js.stream_info(subjects.key_stream(name))).state.messages)


async def test_a_card_is_stored_whole_with_its_hash_and_who_applied_it(js: JetStreamContext) -> None:
    result = await midwatch("apply", "desk.yaml", "--by", "lena")
    assert result.exit_code == 0, result.stderr
    card = load(Path("desk.yaml"))
    assert result.stdout == f"desk: created, revision 1, hash {card.hash[:12]}; its switch says running\n"
    raw = json.loads(await last(js, subjects.AGENTS, "desk"))
    assert (raw["budget"]["run"], raw["budget"]["ticket"], raw["budget"]["day"]) == ("1", "2", None)
    assert raw["switch"] == {
        "lease": 5.0, "lost_control": "fall_back", "drill": "monthly", "drill_hours": "02:00-05:00",
        "trips": {"mode": "observe", "alerts": [], "halted_runs": 3, "failed_runs": 0.5},
    }  # fmt: skip
    stored = msgspec.json.decode(await last(js, subjects.AGENTS, "desk"), type=Card)
    assert (stored.hash, stored.applied_by) == (card.hash, "lena")
    assert stored.applied_at is not None
    assert abs((datetime.now(UTC) - stored.applied_at).total_seconds()) < 30


async def test_the_first_apply_arms_the_agent(js: JetStreamContext) -> None:
    await midwatch("apply", "desk.yaml")
    record = control.decode_record(await last(js, subjects.SWITCH, "agent.desk"))
    assert record is not None
    assert (record.state, record.by) == ("running", "midwatch apply")


async def test_the_same_meaning_is_not_written_again(js: JetStreamContext) -> None:
    await midwatch("apply", "desk.yaml", "--by", "lena")
    before = await last(js, subjects.AGENTS, "desk")
    Path("desk.yaml").write_text("# spaced out\n" + CARD + "budget: {run: $1.00}\n")
    result = await midwatch("apply", "desk.yaml", "--by", "tom")
    assert "desk: unchanged, revision 1," in result.stdout
    assert await last(js, subjects.AGENTS, "desk") == before
    assert await messages(js, subjects.AGENTS) == 1
    assert await messages(js, subjects.SWITCH) == 2  # fleet and agent.desk


async def test_older_versions_are_kept(js: JetStreamContext) -> None:
    await midwatch("apply", "desk.yaml")
    Path("desk.yaml").write_text(CARD + "review: {rate: 50%}\n")
    result = await midwatch("apply", "desk.yaml")
    assert "desk: updated, revision 2," in result.stdout
    first = await js.get_msg(subjects.key_stream(subjects.AGENTS), 1)
    assert msgspec.json.decode(first.data or b"", type=Card).review.rate == 0.2


async def test_nothing_is_written_if_one_card_is_wrong(js: JetStreamContext) -> None:
    Path("other.yaml").write_text("agent: other\nownr: x\n")
    result = await midwatch("apply", ".")
    assert result.exit_code == 1
    assert "other.yaml:2:1: `ownr` is no key of a card: did you mean `owner`?" in result.stderr
    assert result.stderr.splitlines()[-1] == "midwatch: nothing was applied"
    assert await messages(js, subjects.AGENTS) == 0
    with pytest.raises(NotFoundError):
        await last(js, subjects.SWITCH, "agent.desk")


@pytest.mark.parametrize("removal", ["delete", "purge"])
async def test_a_removed_switch_is_left_as_it_is(js: JetStreamContext, removal: str) -> None:
    await midwatch("apply", "desk.yaml")
    switch = await js.key_value(subjects.SWITCH)
    await getattr(switch, removal)("agent.desk")
    before = await messages(js, subjects.SWITCH)
    result = await midwatch("apply", "desk.yaml")
    assert result.exit_code == 0
    assert "its switch is removed and stays so: midwatch resume desk --reason ...\n" in result.stdout
    assert await messages(js, subjects.SWITCH) == before


async def test_a_halted_agent_stays_halted_and_it_is_said(js: JetStreamContext) -> None:
    record = control.SwitchRecord(state="halted", by="lena", reason="refunds \x1b[31mtwice")
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), control.encode(record))
    result = await midwatch("apply", "desk.yaml")
    assert (
        "its switch is halted by lena (refunds  [31mtwice) and stays so: midwatch resume desk --reason ...\n"
        in result.stdout
    )
    assert control.decode_record(await last(js, subjects.SWITCH, "agent.desk")) == record


async def test_an_unreadable_switch_is_left_as_it_is(js: JetStreamContext) -> None:
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), b"running")
    result = await midwatch("apply", "desk.yaml", "--json")
    row: dict[str, Any] = json.loads(result.stdout)
    assert (row["agent"], row["action"], row["switch"], row["switch_written"]) == (
        "desk", "created", "unreadable", False,
    )  # fmt: skip
    assert await last(js, subjects.SWITCH, "agent.desk") == b"running"


async def test_an_unreadable_card_in_the_bucket_is_replaced(js: JetStreamContext) -> None:
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), b"[" * 100_000)
    assert "desk: updated, revision 2," in (await midwatch("apply", "desk.yaml")).stdout


async def test_a_card_that_was_changed_by_hand_is_not_taken_for_unchanged(js: JetStreamContext) -> None:
    await midwatch("apply", "desk.yaml")
    raw = json.loads(await last(js, subjects.AGENTS, "desk"))
    raw["budget"]["run"] = "1000"
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), json.dumps(raw).encode())
    assert "desk: updated, revision 3," in (await midwatch("apply", "desk.yaml")).stdout


async def test_two_who_apply_at_once_both_come_through(js: JetStreamContext) -> None:
    others = [Path(f"{n}.yaml") for n in range(4)]
    for n, path in enumerate(others):
        path.write_text(CARD + f"loops: {{halt_at: {10 + n}}}\n")
    now = datetime.now(UTC)
    done = await asyncio.gather(*(bucket.apply(js, load(path), by="x", now=now) for path in others))
    assert sorted(one.revision for one in done) == [1, 2, 3, 4]
    assert sum(one.switch_written for one in done) == 1


async def test_without_the_topology_it_is_said_what_to_do() -> None:
    result = await midwatch("apply", "desk.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        "midwatch: There is no bucket MIDWATCH_AGENTS on this server: run `midwatch topology apply`.\n"
    )


async def test_an_applied_card_can_be_shown(js: JetStreamContext) -> None:
    Path("desk.yaml").write_text(CARD + "fallback: human\nloops: {halt_at: 6}\n")
    await midwatch("apply", "desk.yaml", "--by", "lena")
    result = await midwatch("card", "show", "desk")
    assert result.exit_code == 0
    assert result.stdout.startswith("# applied by lena at 2")
    Path("shown.yaml").write_text(result.stdout)
    assert load(Path("shown.yaml")) == load(Path("desk.yaml"))
    shown = json.loads((await midwatch("card", "show", "desk", "--json")).stdout)
    assert shown["applied_by"] == "lena"
    assert "fallback" in shown["defaults"]
    assert "loops.halt_at" not in shown["defaults"]


async def test_an_agent_without_a_card_is_told_how_to_get_one(js: JetStreamContext) -> None:
    result = await midwatch("card", "show", "desk")
    assert result.exit_code == 1
    assert result.stderr == (
        "midwatch: No scope card is applied for agent 'desk': write one with `midwatch card new desk`, then "
        "`midwatch apply agents/desk.yaml`.\n"
    )

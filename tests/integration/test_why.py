"""`midwatch why`: the dossier of a run, made from a real log and a real server's buckets."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from evidence_helpers import SealedLog
from logged import alert, received
from midwatch import testing
from midwatch.contracts import control, subjects
from midwatch.contracts.control import BudgetRule, SwitchRecord
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import verify, why
from midwatch_services.dossier.gather import Dossier, ManyRuns, NoRun, gather
from midwatch_services.dossier.page import render
from midwatch_services.logger import store

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def log(settings: Settings) -> Any:
    migrate(settings.database_for("logger"), "logger")
    database = Database(settings.database_for("logger"), name="test")
    yield database
    database.close()


def save(log: Database, *events: Any) -> None:
    log.write_now(lambda conn: store.save(conn, events))


def refund(at: datetime, **more: Any) -> list[Any]:
    """A run of desk that looks the same order up three times, refunds it, and hands off."""
    common = {"at": at, "stored_at": at, "ticket": "T-1", **more}
    same = {"tool": "look_up", "kind": "read", "arguments": {"order": "A-1"}, "result": "paid"}
    return [
        received("started", input=f"Refund me {SCRIPT}", **common),
        received("model_called", seq=1, model="gpt-x", cost_usd="0.25", output="I look it up", **common),
        *[received("tool_called", seq=seq, **same, **common) for seq in (2, 3, 4)],
        received("tool_called", seq=5, tool="refund", kind="write", arguments={"amount": 5}, result="done",
                 undo="void_refund", **common),
        received("handed_off", seq=6, to="human", reason="asks for a lawyer", **common),
        received("finished", seq=7, resolution="handed_off", output="A person will write to you.", **common),
    ]  # fmt: skip


async def put_card(js: JetStreamContext, **fields: Any) -> None:
    card = testing.card("desk", tools=testing.tools(look_up="read", refund="write"), **fields)
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))


async def put_switch(js: JetStreamContext, state: str, reason: str) -> None:
    record = SwitchRecord(state=state, by="eva", reason=reason, at=datetime.now(UTC))
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key("desk")), control.encode(record))


def rules(dossier: Dossier) -> dict[str, tuple[str, str]]:
    return {one.rule: (one.figure, one.outcome) for one in dossier.rules}


async def test_the_card_and_the_switch_are_those_of_then(
    js: JetStreamContext, settings: Settings, log: Database
) -> None:
    await put_card(js, purpose="Of then")
    await put_switch(js, "running", "of then")
    then = datetime.now(UTC)
    save(log, *refund(then))
    await put_card(js, purpose="Of now")
    await put_switch(js, "halted", "of now")
    dossier = await gather(settings, "r-1", None, "sam")
    assert dossier.in_force.card is not None and dossier.in_force.card.purpose == "Of then"
    assert [one.value.reason for one in dossier.in_force.switch if one.key == "agent.desk"] == ["of then"]


async def test_what_changed_while_the_run_went_on_is_told(
    js: JetStreamContext, settings: Settings, log: Database
) -> None:
    await put_switch(js, "running", "before")
    start = datetime.now(UTC)
    await put_switch(js, "halted", "meanwhile")
    save(log, *refund(start)[:-1], *refund(datetime.now(UTC) + timedelta(seconds=1))[-1:])
    dossier = await gather(settings, "r-1", None, "sam")
    assert [one.value.reason for one in dossier.in_force.switch if one.key == "agent.desk"] == ["before", "meanwhile"]


async def test_every_rule_is_named_with_its_figure(js: JetStreamContext, settings: Settings, log: Database) -> None:
    await put_card(js, budget=BudgetRule(run="1", ticket="2"))
    now = datetime.now(UTC)
    other = received("model_called", run_id="r-2", model="m", cost_usd="0.50", ticket="T-1", stored_at=now)
    save(log, *refund(now), other)
    made = alert("raised", rule="budget_run", action_taken="halted_run", title="Run r-1 has cost $1.20")
    log.write_now(lambda conn: store.save_alert(conn, made))
    dossier = await gather(settings, "r-1", None, "sam")
    assert rules(dossier) == {
        "budget_run": ("$0.25 (reported)", "halted run: Run r-1 has cost $1.20"),
        "budget_ticket": ("$0.75", "within"),
        "loop_no_new_state": ("2 in a row at most", "within"),
        "loop_writes": ("1", "within"),
        "loop_cycle": ("at most 1", "within"),
        "loop_text": ("at most 1", "within"),
        "loop_hand_offs": ("1", "within"),
    }


async def test_writes_and_hand_offs_are_listed(js: JetStreamContext, settings: Settings, log: Database) -> None:
    await put_card(js)
    save(log, *refund(datetime.now(UTC)))
    dossier = await gather(settings, "r-1", None, "sam")
    assert [(one["tool"], one["arguments"], one["undo"]) for one in dossier.writes] == [
        ("refund", {"amount": 5}, "void_refund")
    ]
    assert [(one["to"], one["reason"]) for one in dossier.hand_offs] == [("human", "asks for a lawyer")]
    assert (dossier.models, len(dossier.events)) == (["gpt-x"], 8)


async def test_what_is_not_known_is_said(settings: Settings, log: Database) -> None:
    save(log, *refund(datetime.now(UTC)))
    away = settings.model_copy(update={"nats_url": "nats://127.0.0.1:1"})
    dossier = await gather(away, "r-1", None, "sam")
    assert dossier.unknown == [
        "Card, route and switch as they stood then: NATS does not answer; ask again when it does",
        "Whether a case was opened: the database of kill-switch cannot be read",
        "Whether the run was drawn for review: the database of reviewer-sampler cannot be read",
        "The rules that judged the run: they are known by its scope card alone",
    ]
    assert all(one in render(dossier) for one in dossier.unknown)


async def test_a_card_written_after_the_run_is_not_taken_for_that_of_then(
    js: JetStreamContext, settings: Settings, log: Database
) -> None:
    save(log, *refund(datetime.now(UTC) - timedelta(hours=1)))
    await put_card(js)
    dossier = await gather(settings, "r-1", None, "sam")
    assert dossier.in_force.card is None
    assert any(one.startswith("What the scope card said as the run began") for one in dossier.unknown)


async def test_the_page_escapes_what_was_written_to_the_agent(
    js: JetStreamContext, settings: Settings, log: Database
) -> None:
    await put_card(js, purpose=SCRIPT)
    save(log, *refund(datetime.now(UTC)))
    page = render(await gather(settings, "r-1", None, SCRIPT))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3


async def test_a_run_that_is_not_there_or_is_two_is_refused(settings: Settings, log: Database) -> None:
    with pytest.raises(NoRun):
        await gather(settings, "r-1", None, "sam")
    save(log, received("started", input="x"), received("started", input="x", agent="other"))
    with pytest.raises(ManyRuns):
        await gather(settings, "r-1", None, "sam")


def typed(*words: str) -> Result:
    app = typer.Typer()
    why.register(app)
    app.command("nothing")(lambda: None)  # so that the first word names a command
    return CliRunner().invoke(app, ["why", *words])


async def test_the_command_writes_a_page_and_the_same_as_data(
    js: JetStreamContext, settings: Settings, log: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", str(settings.nats_url))
    await put_card(js)
    save(log, *refund(datetime.now(UTC), run_id="a/../b"))
    done = await asyncio.to_thread(typed, "a/../b", "--out", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    written = {path.suffix: path for path in (tmp_path / "new").iterdir()}
    assert {path.name for path in written.values()} == {"why-a_.._b.html", "why-a_.._b.json"}
    data = json.loads(written[".json"].read_text())
    assert (data["run"]["run_id"], len(data["events"])) == ("a/../b", 8)
    assert "asks for a lawyer" in written[".html"].read_text()
    printed = await asyncio.to_thread(typed, "a/../b", "--json")
    assert msgspec.json.decode(printed.stdout)["run"]["agent"] == "desk"


def test_the_command_says_what_to_do_where_there_is_no_log() -> None:
    done = typed("r-1")
    assert done.exit_code == 1


@pytest.fixture
def sealed(settings: Settings) -> Any:
    """A log with twenty events of `r-desk` that are sealed and signed, where a command looks for them."""
    settings.evidence_key.parent.mkdir(parents=True)
    made = SealedLog(settings.database_for("logger"), settings.evidence_key.parent)
    made.fill()
    yield made
    made.database.close()


def verified(path: Path) -> Result:
    app = typer.Typer()
    verify.register(app)
    app.command("nothing")(lambda: None)
    return CliRunner().invoke(app, ["verify", "--dossier", str(path)])


async def test_what_the_command_writes_can_be_verified(
    js: JetStreamContext, settings: Settings, sealed: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", str(settings.nats_url))
    done = await asyncio.to_thread(typed, "r-desk", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    page = (tmp_path / "why-r-desk.html").read_text()
    assert "20 of its 20 events are sealed" in page
    assert "none of it was altered" in page
    data = tmp_path / "why-r-desk.json"
    assert verified(data).exit_code == 0, verified(data).output
    data.write_text(data.read_text().replace("Where is it?", "Where was it?"))
    assert verified(data).exit_code == 1


async def test_a_log_that_was_altered_is_told_on_the_page(settings: Settings, sealed: SealedLog) -> None:
    sealed.database.write_now(
        lambda conn: conn.exec_driver_sql("UPDATE logger_events SET version = '2' WHERE id = 'e-5'")
    )
    page = render(await gather(settings, "r-desk", None, "sam"))
    assert "does not hold" in page
    assert "event said e-5 (seq 2) is not in block 1: it was altered, or put in" in page

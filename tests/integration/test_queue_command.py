"""`midwatch queue` as it is typed: what is shown, and what becomes of a case that people take."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from helpers import eventually
from kill_switch_helpers import kill_switch, said
from logged import received
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseOpened
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import queue, queue_output
from midwatch_services.kill_switch.cases import case_store, hands
from midwatch_services.kill_switch.cases.routing import Case, Note
from midwatch_services.logger import store as log_store

NOW = datetime.now(UTC)
Run = Callable[..., Coroutine[Any, Any, Result]]
app = typer.Typer()
queue.register(app)


def midwatch(*words: str) -> Result:
    return CliRunner().invoke(app, ["queue", *words], terminal_width=200)


def a_case(case_id: str, **more: Any) -> Case:
    usual = Case(
        case_id=case_id, agent="desk", run_id=f"run-{case_id}", state="open", to="human", opened_by="kill-switch",
        opened_at=NOW - timedelta(hours=3, minutes=20), updated_at=NOW, ticket="T-1", key="agent.desk", epoch=7,
        reason="wrong refunds", asked="Where is my \x1b[31mrefund[/bold]?",
    )  # fmt: skip
    return replace(usual, **more)


EVENTS = [
    {"event": "started", "time": "2026-11-22T12:00:00Z", "input": [{"role": "user", "content": "Where is my refund?"}]},
    {"event": "said", "time": "2026-11-22T12:00:01Z", "by": "customer", "text": "Now, \x1b[31mplease[/bold]"},
    {"event": "model_called", "time": "2026-11-22T12:00:02Z", "model": "gpt-x", "cost_usd": "0.25"},
    {"event": "tool_called", "time": "2026-11-22T12:00:03Z", "tool": "refund", "arguments": {"eur": 9}, "result": "ok"},
    {"event": "tool_called", "time": "2026-11-22T12:00:04Z", "tool": "mail", "truncated": True},
    {"event": "said", "time": "2026-11-22T12:00:05Z", "by": "agent", "truncated": True},
]  # fmt: skip


def a_body(case: Case, **more: Any) -> CaseOpened:
    return CaseOpened(
        case_id=case.case_id, agent=case.agent, run_id=case.run_id, to="human", reason=case.reason, by="ann",
        opened_by="kill-switch", ticket=case.ticket, customer="c-7", channel="chat", events=EVENTS, **more,
    )  # fmt: skip


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six cases: two that wait, one taken, one closed, one that a program has, one of a drill."""
    monkeypatch.setenv("COLUMNS", "240")
    add(
        (
            a_case("case-aa1", opened_at=NOW - timedelta(hours=3, minutes=20)),
            [Note(NOW, "kill-switch", "opened", "wrong refunds")],
        ),
        (a_case("case-aa2", opened_at=NOW - timedelta(hours=5, minutes=20), agent="other", ticket=None), []),
        (a_case("case-b", opened_at=NOW, state="taken", taken_by="bob"), [Note(NOW, "bob", "accepted", "ZD-1")]),
        (a_case("case-c", state="closed", opened_at=NOW - timedelta(days=3)), [Note(NOW, "eve", "closed", "refunded")]),
        (a_case("case-d", state="claimed", opened_at=NOW - timedelta(days=2)), []),
        (a_case("case-e", state="closed", mode="drill"), []),
    )


def add(*some: tuple[Case, list[Note]], **more: Any) -> None:
    url = Settings().database_for(subjects.KILL_SWITCH)
    migrate(url, subjects.KILL_SWITCH)
    database = Database(url)

    def write(conn: Any) -> None:
        for case, notes in some:
            case_store.save(conn, case, None if case.state == "claimed" else a_body(case, **more), new=True)
            case_store.note(conn, case.case_id, notes)

    database.write_now(write)
    database.close()


def listed(*words: str) -> list[str]:
    done = midwatch("--json", *words)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["case_id"] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("cases")
def test_the_queue_is_what_waits_for_people_the_oldest_first() -> None:
    assert listed() == ["case-aa2", "case-aa1", "case-b"]


@pytest.mark.usefixtures("cases")
def test_the_queue_can_be_narrowed_down_and_widened() -> None:
    assert listed("--agent", "other") == ["case-aa2"]
    assert listed("--all") == ["case-b", "case-aa1", "case-aa2", "case-d", "case-c"]
    assert listed("--drills") == ["case-e"]
    assert listed("--limit", "1") == ["case-aa2"]


@pytest.mark.usefixtures("cases")
def test_the_table_says_who_waits_for_how_long_for_what_and_who_has_it() -> None:
    lines = [" ".join(line.split()) for line in midwatch().stdout.splitlines()]
    assert lines[0] == "case waiting agent ticket asked stopped because state"
    assert lines[1] == "case-aa2 5 h other Where is my [31mrefund[/bold]? wrong refunds open"
    assert lines[2] == "case-aa1 3 h desk T-1 Where is my [31mrefund[/bold]? wrong refunds open"
    assert lines[3].endswith("taken by bob")
    [closed] = [line for line in midwatch("--all").stdout.splitlines() if line.startswith("case-c ")]
    assert " ".join(closed.split()).startswith("case-c – desk"), "nobody waits any more"


@pytest.mark.usefixtures("cases")
def test_a_case_reads_as_a_story() -> None:
    add((a_case("case-f", doubt="it may have answered", chain=("first",)), []), left_out=3)
    done = midwatch("show", "f")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "Case case-f of desk, run run-case-f, ticket T-1",
        "open; the customer waits for 3 h",
        "stopped by ann (agent.desk, epoch 7): wrong refunds",
        "Doubt: it may have answered",
        "customer c-7, channel chat",
        "had before by first",
        "cost $0.25",
        "",
        "+0.0 s Asked: Where is my refund?",
        "… 3 events are left out here: see `midwatch show run-case-f`",
        "+1.0 s The customer said: Now, [31mplease[/bold]",
        "+2.0 s Asked the model gpt-x",
        '+3.0 s Called refund({"eur": 9}) → ok',
        "+4.0 s Called mail({}) → null",
        "+5.0 s The agent said: (too long for a case: see the run itself)",
        "",
    ]


@pytest.mark.usefixtures("cases")
def test_what_a_case_cost_is_the_run_logs_word_where_it_has_one() -> None:
    url = Settings().database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url)
    batch = [
        received("started", run_id="run-case-aa1", input="x"),
        received("model_called", run_id="run-case-aa1", seq=1, model="m", cost_usd="1.5"),
    ]
    database.write_now(lambda conn: log_store.save(conn, batch))
    database.close()
    assert "cost $1.50\n" in midwatch("show", "case-aa1").stdout


@pytest.mark.usefixtures("cases")
def test_the_history_of_a_case_ends_its_story() -> None:
    done = midwatch("show", "case-b")
    last = done.stdout.splitlines()[-1]
    assert " ".join(last.split()) == f"{NOW:%Y-%m-%d %H:%M:%S} bob accepted: ZD-1"


@pytest.mark.usefixtures("cases")
def test_show_json_has_the_case_the_run_and_the_history() -> None:
    [shown] = [json.loads(line) for line in midwatch("show", "case-b", "--json").stdout.splitlines()]
    assert (shown["taken_by"], len(shown["case"]["events"]), len(shown["history"])) == ("bob", 6, 1)


@pytest.mark.usefixtures("cases")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["show", "zz"], 1, "no case 'zz': list them with `midwatch queue --all`"),
        (["show", "aa"], 2, "may be case-aa1, case-aa2: type more of it"),
        (["take", "case-b", "--by", "ann"], 1, "case-b: bob has it since NOW UTC"),
        (["return", "case-b", "--by", "ann"], 1, "bob has it since"),
        (["close", "case-b", "--by", "ann"], 1, "Speak for them with --by"),
        (["take", "case-c", "--by", "ann"], 1, "it was closed by eve at NOW UTC"),
        (["take", "case-d", "--by", "ann"], 1, "the program of desk itself has it"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], code: int, says: str) -> None:
    done = midwatch(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.output
    assert says.replace("NOW", f"{NOW:%Y-%m-%d %H:%M:%S}") in done.stderr


@pytest.mark.parametrize("words", [[], ["show", "x"], ["take", "x"]])
def test_without_a_database_one_line_says_what_to_do(words: list[str]) -> None:
    done = midwatch(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "midwatch up" in done.stderr


def test_a_database_without_tables_says_what_to_do() -> None:
    database = Database(Settings().database_for(subjects.KILL_SWITCH))
    database.read_now(lambda conn: conn.exec_driver_sql("SELECT 1"))
    database.close()
    assert "midwatch run kill-switch" in midwatch().stderr


@pytest.mark.usefixtures("cases")
def test_without_nats_nothing_is_recorded_and_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    done = midwatch("take", "case-aa1")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "no NATS server answers" in done.stderr


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a thread of its own, as its event loop is its own."""
    monkeypatch.setenv("NATS_URL", settings.url)

    async def invoke(*words: str) -> Result:
        return await asyncio.to_thread(midwatch, *words)

    return invoke


@pytest.mark.usefixtures("cases")
async def test_a_case_is_taken_given_back_taken_by_another_and_closed(
    js: JetStreamContext, settings: Settings, run: Run
) -> None:
    async with kill_switch(settings):
        done = await run("take", "aa1", "--by", "ann", "--reference", "ZD-1")
        assert (done.exit_code, " ".join(done.stdout.split())) == (0, "case-aa1 of desk: taken by ann (ZD-1)")
        refused = await run("take", "aa1", "--by", "bob")
        assert (refused.exit_code, "case-aa1: ann has it since" in refused.stderr) == (1, True)
        back = await run("return", "aa1", "--by", "ann", "--note", "not mine")
        assert (back.exit_code, back.stdout.strip()) == (0, "case-aa1 of desk: open")
        assert (await run("take", "aa1", "--by", "bob")).exit_code == 0
        closed = await run("close", "aa1", "--by", "bob", "--note", "refunded", "--json")
        assert (json.loads(closed.stdout)["state"], json.loads(closed.stdout)["outcome"]) == ("closed", "done")
    shown = await run("show", "aa1")
    told = [" ".join(line.split())[20:] for line in shown.stdout.splitlines()[-4:]]
    assert told == ["ann accepted: ZD-1", "ann returned: not mine", "bob accepted", "bob closed: refunded"]
    assert [event for event, _ in await said(js, "case")] == ["accepted", "returned", "accepted", "closed"]


@pytest.mark.usefixtures("cases")
async def test_of_three_who_take_a_case_at_once_one_has_it_and_the_others_are_told(
    js: JetStreamContext, settings: Settings
) -> None:
    async def take(who: str) -> tuple[str, int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "midwatch_services.cli", "queue", "take", "aa1", "--by", who,
            env=os.environ | {"NATS_URL": settings.url}, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        _, error = await process.communicate()
        return who, process.returncode or 0, error.decode()

    async with kill_switch(settings):
        results = await asyncio.gather(*map(take, ("ann", "bob", "eve")))
    [winner] = [who for who, code, _ in results if code == 0]
    lost = [(code, f"{winner} has it since" in error) for who, code, error in results if who != winner]
    assert lost == [(1, True), (1, True)]


@pytest.mark.usefixtures("cases")
async def test_with_kill_switch_dead_it_is_recorded_and_counts_once_that_is_back(
    js: JetStreamContext, settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "WITHIN", 0.2)
    done = await run("take", "aa1", "--by", "ann")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
    assert "recorded, not confirmed" in done.stderr
    async with kill_switch(settings):
        await eventually(lambda: "taken by ann" in midwatch("show", "aa1").stdout)


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([{"cost_usd": "0.25"}, {"cost_usd": "0.001"}], "$0.25"),
        ([{"cost_usd": "0.25"}, {}], "at least $0.25"),
        ([{"cost_usd": "0.25"}, {"cost_usd": "0", "usage": {"input_tokens": 9}}], "at least $0.25"),
        ([{"cost_usd": "0", "usage": {"input_tokens": 9}}], "not known"),
        ([{"cost_usd": "0.00001"}], "$0.00001"),
        ([{}], "not known"),
        ([], "–"),
    ],
)
def test_what_the_events_of_a_case_say_of_its_cost_is_never_zero_for_unknown(
    calls: list[dict[str, Any]], said: str
) -> None:
    assert queue_output._cost([{"event": "model_called", **call} for call in calls]) == said

"""`midwatch ack`, `pager`, `test-page` and `alerts show` as they are typed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from helpers import eventually
from logged import NOON
from midwatch.contracts import subjects
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import ack, alerts, runs
from midwatch_services.commands import pager as command
from midwatch_services.logger import store as log_store
from pager_helpers import (
    FILE,
    SECRET,
    Receiver,
    Ticks,
    alert,
    alerts_said,
    listening,
    pager,
    rows,
    say,
    told,
    write_file,
)

ROOT = Path(__file__).resolve().parents[2]
LONG = "3f9a1c00000000000000000000000000"


@pytest.fixture
def people() -> Iterator[Receiver]:
    with listening() as found:
        yield found


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("PAGER_SECRET", SECRET)


def run(*words: str) -> Result:
    app = typer.Typer()
    for module in (alerts, ack, command, runs):
        module.register(app)
    return CliRunner().invoke(app, list(words), terminal_width=200)


async def typed(*words: str) -> Result:
    return await asyncio.to_thread(run, *words)


def rows_of(done: Result) -> list[dict[str, Any]]:
    """What a command printed, without what a service in the same process logs meanwhile."""
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


# ack


async def test_an_alert_is_taken_on_by_the_beginning_of_its_id_and_nobody_else_is_called(
    js: JetStreamContext, settings: Settings, people: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = Ticks(monkeypatch)
    monkeypatch.setenv("NATS_URL", settings.url)
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings):
        await say(js, "raised", LONG)
        [page] = await told(people, "/ann", "page")
        shown = page.said["data"]["acknowledge"]
        assert shown == "midwatch ack 3f9a1c000000"
        done = await typed(*shown.split()[1:], "--note", "rolling it back", "--by", "ann", "--json")
        assert done.exit_code == 0, done.output
        row = rows_of(done)[0]
        assert (row["alert_id"], row["by"], row["note"], row["ended"]) == (LONG, "ann", "rolling it back", False)
        await ticks.settled(js, settings)
    (_, data), *_ = [one for one in await alerts_said(js) if one[0] == "acknowledged"]
    assert (data.alert_id, data.by, data.note) == (LONG, "ann", "rolling it back")
    again = await typed("ack", LONG, "--by", "cy")
    assert "ann had taken it on before" in again.stdout


async def test_what_cannot_be_acknowledged_is_said_in_one_line_and_by_the_exit_code(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", settings.url)
    await say(js, "raised", "ab-1")
    await say(js, "raised", "ab-2")
    none, several = await typed("ack", "zz"), await typed("ack", "ab")
    assert (none.exit_code, several.exit_code) == (1, 2)
    assert none.stderr == "midwatch: no alert 'zz' in the last 30 days: list them with `midwatch alerts --open`\n"
    assert several.stderr == "midwatch: 'ab' may mean ab-1, ab-2: write more of it\n"
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    down = await typed("ack", "ab-1")
    assert down.exit_code == 1
    assert "Nothing was acknowledged." in down.stderr
    assert down.stderr.count("\n") == 1


# alerts


def keep_in_log(*made: object) -> None:
    url = Settings().database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url)
    for one in made:
        database.write_now(lambda conn, one=one: log_store.save_alert(conn, one))
    database.close()


def test_alerts_of_one_cause_are_one_line() -> None:
    keep_in_log(
        *(alert("raised", f"a-{number}", at=NOON) for number in range(3)),
        alert("resolved", "a-0", repeats=4), alert("raised", "b-1", severity="ticket", at=NOON),
    )  # fmt: skip
    found = [json.loads(line) for line in run("alerts", "--grouped", "--json").stdout.splitlines()]
    shown = [(one["severity"], one["alerts"], one["open"], one["repeats"]) for one in found]
    assert sorted(shown) == [("page", 3, 2, 4), ("ticket", 1, 1, 0)]
    assert [json.loads(line)["alert_id"] for line in run("alerts", "--severity", "ticket", "--json").stdout.split("\n")
            if line] == ["b-1"]  # fmt: skip
    assert run("alerts", "--severity", "loud").exit_code == 2


async def test_show_tells_who_was_told_when_and_with_what_result(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    people.reply = lambda call: 500 if call.path == "/bob" else 200
    text = (FILE % {"url": people.url}).replace("tell: ann,", "tell: [ann, bob],")
    write_file(settings, text)
    async with pager(settings):
        await say(js, "raised", LONG)
        both = "SELECT id FROM pager_deliveries WHERE phase = 'sent' OR error IS NOT NULL"
        await eventually(lambda: len(rows(settings, both)) == 2)
    keep_in_log(alert("raised", LONG, at=NOON))
    done = await typed("alerts", "show", LONG[:6], "--json")
    assert done.exit_code == 0, done.output
    row = rows_of(done)[0]
    results = {one["channel"]: (one["what"], one["result"], one["error"]) for one in row["deliveries"]}
    assert results["ann"] == ("page", "sent", None)
    assert results["bob"][:2] == ("page", "waiting")
    assert row["evidence"] == f"midwatch show run-{LONG}"
    assert (await typed("alerts", "show", "zz")).exit_code == 1
    shown = (await typed("alerts", "show", LONG)).stdout
    assert "Run of" in shown
    assert "sent" in shown
    assert SECRET not in shown + done.stdout


# pager.yaml


def test_a_new_file_is_commented_accepted_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "pager.yaml"
    assert run("pager", "new", "--path", str(path)).exit_code == 0
    assert run("pager", "check", "--path", str(path), "--without-secrets").exit_code == 0
    unset = run("pager", "check", "--path", str(path))
    assert unset.exit_code == 1
    assert "${ANN_PHONE_URL} is not set in the environment of the pager" in unset.stderr
    monkeypatch.setenv("ANN_PHONE_URL", "json://127.0.0.1/secret-path")
    monkeypatch.setenv("TEAM_CHAT_URL", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general")
    good = run("pager", "check", "--path", str(path))
    assert good.exit_code == 0, good.output
    assert "secret-path" not in good.stdout
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in good.stdout + run("pager", "check", "--path", str(path), "--json").stdout
    assert run("pager", "new", "--path", str(path)).exit_code == 1


def test_the_example_is_accepted() -> None:
    done = run("pager", "check", "--path", str(ROOT / "deploy/pager/pager.example.yaml"), "--without-secrets")
    assert done.exit_code == 0, done.output


def test_without_a_file_both_commands_say_what_to_do() -> None:
    for words in (("pager", "check"), ("test-page",)):
        done = run(*words)
        assert done.exit_code == 1
        assert "`midwatch pager new` writes a start" in done.stderr


# test-page


def test_a_test_page_really_goes_through_each_channel_and_says_so(people: Receiver) -> None:
    write_file(Settings(), FILE % {"url": people.url})
    done = run("test-page")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ann", "bob", "lead"]
    assert sorted(call.path for call in people.calls) == ["/ann", "/bob", "/lead"]
    data = people.calls[0].said["data"]
    assert people.calls[0].what == "test"
    assert data["title"].endswith("nothing is wrong, and there is nothing to do")


def test_a_channel_that_does_not_take_the_test_is_named_and_the_exit_code_says_so(people: Receiver) -> None:
    people.reply = lambda call: 410 if call.path == "/bob" else 200
    write_file(Settings(), FILE % {"url": people.url})
    done = run("test-page", "--json")
    assert done.exit_code == 1
    found = {row["channel"]: (row["ok"], row["error"]) for row in map(json.loads, done.stdout.splitlines())}
    assert found == {"ann": (True, None), "bob": (False, "it answers 410 Gone"), "lead": (True, None)}
    assert run("test-page", "--contact", "ann", "--channel", "lead").exit_code == 0
    assert run("test-page", "--contact", "nobody").exit_code == 2
    assert SECRET not in done.output

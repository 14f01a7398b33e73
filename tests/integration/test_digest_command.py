"""`midwatch digest`, made from a log on the spot."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from digest_helpers import log
from kept_helpers import a_case, insert
from logged import alert, received
from midwatch.contracts import subjects
from midwatch.contracts.reviews import DigestWritten
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.cli import app
from midwatch_services.digest import store
from midwatch_services.kill_switch import tables as switch_tables

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["digest", *arguments])
    return found.exit_code, found.output


@pytest.fixture
def filled() -> None:
    events = []
    for number, resolution in enumerate(("resolved", "failed", "halted")):
        at, name = NOON + timedelta(minutes=number), {"run_id": f"r-{number}"}
        events.append(received("started", at=at, stored_at=at, input=f"Question <b>{number}</b>", **name))
        call = {"model": "gpt-4.1", "provider": "openai", "cost_usd": "0.5", "seq": 1}
        events.append(received("model_called", at=at, stored_at=at, **name, **call))
        tool = {"tool": "look_up", "kind": "read", "call_id": "c", "seq": 2}
        events.append(received("tool_called", at=at, stored_at=at, **name, **tool))
        end = at + timedelta(seconds=30)
        events.append(received("finished", at=end, stored_at=end, resolution=resolution, seq=3, **name))
    late = NOON + timedelta(hours=12)  # the next day in UTC
    events.append(received("started", at=late, stored_at=late, input="Late", run_id="r-late", agent="post-room"))
    raised = alert("raised", at=NOON, run_id="r-2", title="Run r-2 has cost $1.20")
    log(Settings(), events, [raised, alert("acknowledged", at=NOON, by="ann")])


@pytest.mark.usefixtures("filled")
def test_a_day_is_told_from_the_log_alone() -> None:
    code, output = run("--date", "2026-11-25")
    assert code == 0
    flat = output.replace("\u00a0", " ")
    for line in (
        "The whole shop: Wednesday, 25 November 2026",
        "3 runs began on this day: 1 settled, 1 failed and 1 stopped. [1]",
        "- 1 run of desk was stopped because it had spent all that one run may cost. [2]", "- Ann took it on. [3]",
        "- 1 run failed. [4]", "- It is not known which cases wait for a person: their list could not be read.",
        "- The day cost $1.50.", "[2] run r-2: midwatch show r-2",
    ):  # fmt: skip
        assert line in flat, output


@pytest.mark.usefixtures("filled")
def test_however_many_cases_wait_all_of_them_are_counted() -> None:
    rows = [a_case(number, NOON) for number in range(10_002)]
    insert(Settings(), subjects.KILL_SWITCH, switch_tables.Case, rows)
    _, output = run("--date", "2026-11-25")
    assert "10,002 cases wait for a person." in output.replace("\u00a0", " ")


@pytest.mark.usefixtures("filled")
def test_the_day_may_be_that_of_a_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_DIGEST_ZONE", "America/New_York")
    _, output = run("--date", "2026-11-25")
    assert "4 runs of 2 agents began on this day" in output
    assert "by the time of New York" in output.replace("\n", " ")


@pytest.mark.usefixtures("filled")
def test_one_agent_one_format_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_CONSOLE_URL", "https://ops.example")
    out = tmp_path / "digest.html"
    code, output = run("--date", "2026-11-25", "--agent", "desk", "--format", "html", "--out", str(out))
    assert (code, output) == (0, f"{out}: written.\n")
    html = out.read_text()
    assert "<b>" not in html
    assert "https://ops.example/runs/desk/r-2" in html
    code, output = run("--date", "2026-11-25", "--agent", "desk", "--format", "markdown")
    assert output.startswith("# Desk: Wednesday, 25 November 2026\n")


@pytest.mark.usefixtures("filled")
def test_scripts_read_it_as_json() -> None:
    code, output = run("--date", "2026-11-25", "--json")
    found = json.loads(output)
    assert code == 0
    assert (found["agent"], found["day"], found["left_out"]) == ("_fleet", "2026-11-25", 0)
    assert found["words"] <= 2000 and found["grade"] <= 9
    assert found["sections"][0]["sentences"][0]["sources"] == [{"kind": "run", "agent": "desk", "name": "r-2"}]


@pytest.mark.usefixtures("filled")
def test_a_day_without_runs_is_no_error() -> None:
    code, output = run("--date", "2026-11-20", "--agent", "desk")
    assert code == 0
    assert "No run of desk began on this day. [1]" in output


@pytest.mark.usefixtures("filled")
def test_fewer_words_may_be_asked_for() -> None:
    _, output = run("--date", "2026-11-25", "--words", "100", "--json")
    found = json.loads(output)
    assert found["words"] <= 100 and found["left_out"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--date", "yesterday"), 2, "--date 'yesterday' is no day such as 2026-11-25"),
        (("--date", "0001-01-01"), 2, "is no day of an agent"),
        (("--agent", "No Agent"), 2, "No Agent"),
        (("--mode", "lives"), 2, "--mode 'lives' is none of live, shadow, eval, drill, replay"),
        (("--date", "2026-11-25"), 1, "there is no database at"),
        (("--sent",), 1, "there is no database at"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    found, output = run(*arguments)
    assert found == code
    assert text.lower() in output.lower()


def test_what_was_sent_can_be_read_again() -> None:
    url = Settings().database_for(subjects.DIGEST)
    migrate(url, subjects.DIGEST)
    code, output = run("--sent")
    assert (code, output) == (0, "No digest was sent yet.\n")
    sent = DigestWritten(
        agent="desk", date="2026-11-25", title="Desk: Wednesday", words=12, text="As it was.\n", markdown="# m\n",
        html="<p>h</p>",
    )  # fmt: skip
    database = Database(url)
    database.write_now(lambda conn: store.save(conn, sent, NOON))
    database.close()
    assert run("--sent", "--date", "2026-11-25", "--agent", "desk") == (0, "As it was.\n")
    assert run("--sent", "--date", "2026-11-25", "--agent", "desk", "--format", "html") == (0, "<p>h</p>")
    code, output = run("--sent", "--json")
    assert json.loads(output) == {
        "date": "2026-11-25", "agent": "desk", "words": 12, "title": "Desk: Wednesday", "written": "2026-11-25 12:00",
    }  # fmt: skip
    code, output = run("--sent", "--date", "2026-11-25")
    assert code == 1
    assert "no digest of _fleet was sent for 2026-11-25" in output

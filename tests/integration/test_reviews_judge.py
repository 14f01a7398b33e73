"""`midwatch reviews next`, `judge`, `release` and `work`: what a person at a terminal, or a script, does with runs."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.runtime.settings import Settings
from midwatch_services.commands import reviews_work
from midwatch_services.reviewer_sampler.judging import claims
from midwatch_services.reviewer_sampler.judging.desk import Desk
from review_helpers import begin, judge, judged, log, midwatch, put_card, rows, said, sampler

WORK = [sys.executable, "-m", "midwatch_services.cli", "reviews", "work", "--by", "ann"]
HELD = "SELECT by, run_id FROM reviewer_sampler_claims WHERE over = 0 ORDER BY by"
SAID = (
    "SELECT run_id, by, verdict, reasons, corrected, note, counts FROM reviewer_sampler_judgements ORDER BY run_id, by"
)


@pytest.fixture
async def desk(js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settings]:
    """A sampler, and a queue of three runs that the log knows."""
    monkeypatch.setenv("NATS_URL", settings.url)
    monkeypatch.setenv("COLUMNS", "200")
    await put_card(js, minutes_a_day=30)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3")
        await log(settings, "r-1", "r-2", "r-3")
        yield settings


async def test_next_takes_a_run_and_tells_it_as_a_story(desk: Settings) -> None:
    result = await midwatch("next", "--by", "ann")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"Held for ann until \d\d:\d\d; 2 more runs to judge; 30 minutes left today", lines[0])
    assert lines[1] == "Read because of: drawn"
    assert lines[2] == "Run r-1 of desk 1, ticket T-1"
    assert "Asked: Where is  [31mit?" in result.stdout
    assert lines[-1] == "Then: midwatch reviews judge r-1 pass, fail or unsure"
    assert rows(desk, HELD) == [{"by": "ann", "run_id": "r-1"}]
    other = json.loads((await midwatch("next", "--by", "ben", "--json")).stdout)
    assert (other["held"]["run_id"], other["causes"], other["run"]["ticket"]) == ("r-2", ["drawn"], "T-1")
    assert [event["event"] for event in other["event_list"]] == ["started", "finished"]


async def test_a_run_that_still_goes_on_is_left_for_later(desk: Settings, js: JetStreamContext) -> None:
    await begin(js, "r-4")
    await log(desk, "r-4", ended=False, at=datetime.now(UTC))
    for run_id in ("r-1", "r-2", "r-3"):
        assert f"Run {run_id} of desk" in (await midwatch("next", "--by", run_id)).stdout
    last = await midwatch("next", "--by", "zoe")
    assert (last.exit_code, last.stdout) == (3, "nothing waits for zoe\n")
    assert [row["run_id"] for row in rows(desk, HELD)] == ["r-1", "r-2", "r-3"]


async def test_judge_says_the_verdict_and_all_that_belongs_to_it(desk: Settings, js: JetStreamContext) -> None:
    await midwatch("next", "--by", "ann")
    result = await midwatch(
        "judge", "r-1", "fail", "--reason", "tone", "--reason", "rude", "--correct", "Sorry.", "--note", "n", "--by",
        "ann",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "r-1: fail, by ann"
    assert "rude: not among the reasons of desk" in result.stdout
    await judged(js)
    assert rows(desk, SAID) == [
        {"run_id": "r-1", "by": "ann", "verdict": "fail", "reasons": '["tone","other"]', "corrected": "Sorry.",
         "note": "rude: n", "counts": 1},
    ]  # fmt: skip
    again = await midwatch("judge", "r-1", "pass", "--by", "ann")
    assert again.exit_code == 3
    assert "It is kept, and may not count: ann has judged r-1 already" in again.stdout


async def test_nobody_sees_a_verdict_before_it_is_settled(desk: Settings, js: JetStreamContext, nc: Client) -> None:
    await judge(nc, "ann", "r-1", "fail", reasons=["tone"], corrected="secret-1", note="secret-2")
    shown = [await midwatch("next", "--by", "ben", *more) for more in ((), ("--json",))]
    shown += [await midwatch(*more) for more in (("--json",), (), ("agreement", "--json"))]
    for result in shown:
        assert "secret" not in result.stdout
        assert '"fail"' not in result.stdout
    row = next(json.loads(line) for line in shown[2].stdout.splitlines() if '"r-1"' in line)
    assert (row["state"], row["verdict"]) == ("judged", None)
    assert "second" not in row


async def test_agreement_says_how_many_wait_for_a_second_person_and_are_in_no_figure(
    desk: Settings, nc: Client
) -> None:
    await judge(nc, "ann", "r-1", "pass")
    await judge(nc, "ann", "r-2", "fail")
    lines = (await midwatch("agreement")).stdout.splitlines()
    waits = "1 more was judged and waits for one more person, as every fail does: not in this figure"
    assert lines[1] == f"  failure rate, of 1 drawn: 0.0% (95 %: 0.0% to 79.3%); {waits}"
    assert lines[2] == "  of 0 read for another cause, counted apart: none settled yet"


async def test_release_gives_back_what_is_held(desk: Settings) -> None:
    await midwatch("next", "--by", "ann")
    assert (await midwatch("release", "r-1", "--by", "ann")).stdout == "r-1: released\n"
    assert rows(desk, HELD) == []
    gone = await midwatch("release", "nothing", "--by", "ann")
    assert gone.exit_code == 1
    assert gone.stderr == "midwatch: nothing is not in the queue: list it with `midwatch reviews`\n"


async def test_without_a_sampler_a_verdict_is_kept_all_the_same(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", settings.url)
    result = await midwatch("judge", "r-9", "pass", "--agent", "desk", "--by", "ann")
    assert result.exit_code == 3
    assert "No reviewer-sampler answers (nobody listens)" in result.stdout
    async with sampler(settings):
        await judged(js)
    assert rows(settings, SAID)[0]["counts"] == 1
    nothing = await midwatch("next")
    assert nothing.exit_code == 1
    assert nothing.stderr.startswith("midwatch: No reviewer-sampler answers (nobody listens): start it with")


async def test_without_a_server_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    result = await midwatch("next")
    assert result.exit_code == 1
    assert result.stderr.startswith("midwatch: NATS at nats://127.0.0.1:1 does not answer")
    assert result.stderr.endswith("No run was taken.\n")


async def typed(settings: Settings, text: str) -> tuple[int, str]:
    """`work` in a process of its own with these lines as its input."""
    child = await asyncio.create_subprocess_exec(
        *WORK,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=settings.home,
    )
    out, _ = await asyncio.wait_for(child.communicate(text.encode()), 60)
    return child.returncode or 0, out.decode()


async def test_lines_do_what_keys_do(desk: Settings, js: JetStreamContext) -> None:
    code, out = await typed(desk, "c It is lost.\nn late\nf\n53\n?\ns\nu\n")
    assert code == 0, out
    assert "Why? 1 promised too much  2 wrong fact  3 wrong write" in out
    assert out.splitlines()[-2:] == ["nothing waits for ann", "2 runs judged, 1 skipped."]
    await judged(js)
    found = [{**row, "reasons": json.loads(row["reasons"])} for row in rows(desk, SAID)]
    assert found == [
        {"run_id": "r-1", "by": "ann", "verdict": "fail", "reasons": ["tone", "wrong_write"],
         "corrected": "It is lost.", "note": "late", "counts": 1},
        {"run_id": "r-3", "by": "ann", "verdict": "unsure", "reasons": [], "corrected": "", "note": "", "counts": 1},
    ]  # fmt: skip
    assert rows(desk, HELD) == []
    seconds = rows(desk, "SELECT seconds FROM reviewer_sampler_judgements")
    assert all(0 <= row["seconds"] < 60 for row in seconds)


@pytest.mark.parametrize("text", ["p\nq\n", "p\n"])
async def test_who_leaves_gives_the_run_back(desk: Settings, js: JetStreamContext, text: str) -> None:
    code, out = await typed(desk, text)
    assert code == 0, out
    assert out.endswith("1 run judged.\n")
    await judged(js)
    assert rows(desk, HELD) == []
    assert [row["run_id"] for row in rows(desk, SAID)] == ["r-1"]


class Terminal:
    """`work` in a terminal of its own."""

    def __init__(self, child: asyncio.subprocess.Process, fd: int) -> None:
        self.child, self._fd, self._text = child, fd, ""
        os.set_blocking(fd, False)

    async def shows(self, text: str) -> None:
        def look() -> bool:
            with contextlib.suppress(OSError):  # nothing yet, or no more
                self._text += os.read(self._fd, 65536).decode()
            return text in self._text

        await eventually(look)

    def press(self, keys: str) -> None:
        self._text = ""
        os.write(self._fd, keys.encode())


@pytest.fixture
async def terminal(desk: Settings) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    child = await asyncio.create_subprocess_exec(
        *WORK, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env={**os.environ, "TERM": "dumb"}
    )
    os.close(theirs)
    found = Terminal(child, ours)
    yield found
    if child.returncode is None:
        child.kill()
    await child.wait()
    os.close(ours)


async def test_a_terminal_takes_single_keys(terminal: Terminal, desk: Settings, js: JetStreamContext) -> None:
    await terminal.shows("q quit")
    terminal.press("c")
    await terminal.shows("What should it have answered?")
    terminal.press("Lost.\n")
    await terminal.shows("q quit")
    terminal.press("f")
    await terminal.shows("Why?")
    terminal.press("2\n")
    await terminal.shows("Run r-2")
    await terminal.shows("q quit")
    terminal.press("p")
    await terminal.shows("Run r-3")
    terminal.press("q")
    await terminal.shows("2 runs judged.")
    assert await asyncio.wait_for(terminal.child.wait(), 20) == 0
    await judged(js)
    assert [(row["run_id"], row["verdict"], row["corrected"]) for row in rows(desk, SAID)] == [
        ("r-1", "fail", "Lost."), ("r-2", "pass", ""),
    ]  # fmt: skip
    assert rows(desk, HELD) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_terminal_that_is_left_gives_the_run_back(
    terminal: Terminal, desk: Settings, number: signal.Signals
) -> None:
    await terminal.shows("q quit")
    assert rows(desk, HELD) == [{"by": "ann", "run_id": "r-1"}]
    terminal.child.send_signal(number)
    await asyncio.wait_for(terminal.child.wait(), 20)
    assert rows(desk, HELD) == []


class AnHourOff(datetime):
    """How an answer's times are to a reader whose clock is an hour behind."""

    @classmethod
    def fromtimestamp(cls, at: float, tz: Any = None) -> datetime:
        return datetime.fromtimestamp(at + 3600, tz)


async def test_a_run_is_held_for_as_long_as_it_is_read_however_wrong_the_readers_clock_is(
    terminal: Terminal, desk: Settings, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "datetime", AnHourOff)
    await terminal.shows("q quit")
    await put_card(js, claim=1.0)
    terminal.press("s")
    await terminal.shows("Run r-2")
    query = "SELECT max(until) - min(taken_at) AS held FROM reviewer_sampler_claims WHERE run_id = 'r-2'"
    await eventually(lambda: (rows(desk, query)[0]["held"] or 0) > 2.0)
    assert rows(desk, HELD) == [{"by": "ann", "run_id": "r-2"}]
    terminal.press("p")
    await terminal.shows("Run r-3")
    await judged(js)
    assert [row["counts"] for row in rows(desk, SAID)] == [1]


class Asleep:
    """The clocks of a machine that sleeps: one stands still, the other is what it has to be after it."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1_000_000.0 + self.slept


async def test_a_run_is_held_on_at_once_after_the_machine_has_slept(
    desk: Settings, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks, until = Asleep(), "SELECT until FROM reviewer_sampler_claims"
    monkeypatch.setattr(reviews_work, "time", clocks)
    one = Desk(nc, "ann")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        session = reviews_work.Session(one, None)
    extending = asyncio.create_task(session._extend(await one.take()))
    await asyncio.sleep(0)
    try:
        first = rows(desk, until)[0]["until"]
        clocks.slept = 1000.0
        await eventually(lambda: rows(desk, until)[0]["until"] > first)
    finally:
        extending.cancel()


async def test_an_eval_case_is_made_with_one_key(desk: Settings, js: JetStreamContext) -> None:
    pytest.importorskip("midwatch_services.evals.make")
    _, out = await typed(desk, "e 1\nq\n")
    assert "Eval case: " in out
    await judged(js)
    assert [event for event, _ in await said(js, "agreed")] == []

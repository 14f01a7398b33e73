"""`midwatch eval add` and `judge`: cases made of a real log, with a real server's card, and judges held against it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from eval_helpers import midwatch, put
from logged import NOON, received
from midwatch import testing
from midwatch.contracts import codec, control, reviews, subjects
from midwatch.contracts.erasure import ErasedRun
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import erase
from midwatch_services.evals import load, logged
from midwatch_services.evals.case import CallRule, Case, Expect
from midwatch_services.evals.judge import evaluate, passed
from midwatch_services.evals.kinds import in_domain, of_file
from midwatch_services.evals.make import of_run
from midwatch_services.evals.published import NoCase, case_of
from midwatch_services.evals.recorded import outcome_of, without_tokens
from midwatch_services.logger import store
from midwatch_services.logger.erasure import blank
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.replay.formats import Found, read
from midwatch_services.replay.mapping import to_played
from midwatch_services.reviewer_sampler import tables
from real_log import fill


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats_server: Any) -> Settings:
    """As the commands read them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return Settings()


@pytest.fixture
def log(settings: Settings) -> Any:
    migrate(settings.database_for(subjects.LOGGER), subjects.LOGGER)
    database = Database(settings.database_for(subjects.LOGGER), name="test")
    yield database
    database.close()


async def command(*arguments: str) -> Result:
    return await asyncio.to_thread(midwatch, *arguments)


def a_run(log: Database, run_id: str = "r-1", agent: str = "desk", said: str = "I was charged twice") -> None:
    common = {"run_id": run_id, "agent": agent, "version": "7"}
    batch = [
        received("started", input=said, **common),
        received("tool_called", seq=1, tool="look_up", arguments={"id": "A-1"}, result={"total": 20}, **common),
        received("said", seq=2, by="agent", text="Shall I refund it?", **common),
        received("said", seq=3, by="customer", text="Yes, to ana@example.org", **common),
        received("tool_called", seq=4, tool="issue_refund", arguments={"amount": 20}, result="done", **common),
        received("finished", seq=5, resolution="resolved", output="Refunded.", **common),
    ]
    log.write_now(lambda conn: store.save(conn, batch))


def judged(log: Database, run_id: str, verdict: str) -> None:
    data = reviews.ReviewAgreed(by=["ana", "bo"], run_id=run_id, agent="desk", verdict=verdict)  # type: ignore[arg-type]
    made = codec.envelope("review", "agreed", data, source="/services/reviewer-sampler", time=NOON + timedelta(hours=1))
    log.write_now(lambda conn: store.save_review(conn, made))


async def put_card(js: JetStreamContext) -> None:
    card = testing.card("desk", tools=testing.tools(look_up="read", issue_refund="write", close_account="write"))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))


def the_case(name: str = "r-1") -> Case:
    cases, broken = load.load("desk")
    assert broken == []
    return next(case for case in cases if case.name == name)


async def test_a_logged_run_becomes_a_case_with_the_cards_kinds(js: JetStreamContext, log: Database) -> None:
    await put_card(js)
    a_run(log)
    done = await command("add", "r-1")
    assert done.exit_code == 0 and "midwatch eval agree r-1 --by YOU" in done.output
    case = the_case()
    assert case.turns == ("I was charged twice", "Yes, to [email]")  # as the log has it: redacted before storage
    assert case.kinds == {"close_account": "write", "issue_refund": "write", "look_up": "read"}
    assert [(one.tool, one.kind, one.result) for one in case.recorded] == [
        ("look_up", "read", {"total": 20}), ("issue_refund", "write", "done")
    ]  # fmt: skip
    assert case.expect == Expect(writes=(CallRule("issue_refund", {"amount": 20}),), hands_off=False)
    assert (await command("add", "r-1", "--turn", "1", "--name", "r-1-first")).exit_code == 0
    assert (the_case("r-1-first").turns, the_case("r-1-first").expect.writes) == (("I was charged twice",), ())


async def test_a_tool_that_the_card_does_not_name_counts_as_a_write(js: JetStreamContext, log: Database) -> None:
    card = testing.card("desk", tools=testing.tools(look_up="read"))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))
    a_run(log)
    assert (await command("add", "r-1")).exit_code == 0
    assert the_case().expect.writes == (CallRule("issue_refund", {"amount": 20}),)


async def test_a_case_that_is_there_stays(js: JetStreamContext, log: Database) -> None:
    a_run(log)
    assert (await command("add", "r-1")).exit_code == 0
    path = Path("evals/desk/r-1.yaml")
    path.write_text(before := "# mine\n" + path.read_text())
    again = await command("add", "r-1")
    assert again.exit_code == 1 and "choose another name with `--name`" in again.output
    assert path.read_text() == before


async def test_of_several_runs_one_that_makes_no_case_keeps_no_other(js: JetStreamContext, log: Database) -> None:
    a_run(log, "r-1")
    a_run(log, "r-2", said=" ")
    a_run(log, "r-3")
    done = await command("add", "r-1", "nobody", "r-3")
    assert done.exit_code == 1
    assert "No run 'nobody' is in the log: list them with `midwatch runs`." in done.output
    assert {case.name for case in load.load("desk")[0]} == {"r-1", "r-3"}
    assert (await command("add", "r-1", "r-3", "--name", "x")).exit_code == 2
    assert (await command("add", "r-1", "--name", "../x")).exit_code == 2


async def test_of_two_agents_with_one_run_id_it_asks_whose(js: JetStreamContext, log: Database) -> None:
    a_run(log)
    a_run(log, agent="shop")
    told = await command("add", "r-1")
    assert told.exit_code == 1 and "desk, shop each have a run 'r-1': say whose with --agent." in told.output
    assert (await command("add", "r-1", "--agent", "shop")).exit_code == 0
    assert Path("evals/shop/r-1.yaml").is_file()


async def test_an_erased_run_makes_no_case(js: JetStreamContext, log: Database) -> None:
    a_run(log)
    body = blank.body_of("e-1", b"x" * 16, "{}")
    log.write_now(lambda conn: conn.execute(sa.text("UPDATE logger_events SET body = :b WHERE seq = 3"), {"b": body}))
    told = await command("add", "r-1")
    assert told.exit_code == 1 and "was erased on request: it makes no case" in told.output
    assert not Path("evals").exists()


def test_files_that_were_made_of_an_erased_run_are_left_out_and_removed_with_their_twins(log: Database) -> None:
    made = put(Path(), "made.yaml", "case: r-1\nfrom: {run: r-1}\nconversation: [I was charged]\n")
    twin = f"case: loud\ntwin: {{of: r-1, how: shouting, hash: {'a' * 64}}}\nconversation: [I WAS CHARGED]\n"
    loud = put(Path(), "stress/loud.yaml", twin)
    other = put(Path(), "other.yaml", "case: other\nfrom: {run: r-11}\nconversation: [hello]\n")
    several = "cases:\n- {case: a, from: {run: r-1}, conversation: [hello]}\n- {case: b, conversation: [hello]}\n"
    both = put(Path(), "several.yaml", several)
    broken = put(Path(), "broken.yaml", "case: [r-1\n")
    log.write_now(lambda conn: erasures.remember(conn, "er-1", [ErasedRun(agent="desk", run_id="r-1")]))

    told = midwatch("check", "desk")
    assert told.exit_code == 1
    assert "made.yaml:1: `r-1` is left out: the run that it was made of was erased on request" in told.output
    app = typer.Typer()
    erase.register(app)
    app.command()(lambda: None)
    gone = CliRunner().invoke(app, ["erase", "cases", "--yes"])
    assert gone.exit_code == 4
    assert "2 files removed, 2 left" in gone.output
    assert f"{both} holds what an erased run said: it holds other cases as well" in gone.output
    assert f"{broken} holds what an erased run said: it cannot be read and names the run" in gone.output
    assert [one.exists() for one in (made, loud, both, broken, other)] == [False, False, True, True, True]


async def test_nothing_that_a_failed_run_did_is_asked_for(js: JetStreamContext, log: Database) -> None:
    a_run(log)
    judged(log, "r-1", "fail")
    assert (await command("add", "r-1")).exit_code == 0
    assert the_case().expect == Expect()
    assert "A reviewer failed this run, so nothing that it did is asked for" in Path("evals/desk/r-1.yaml").read_text()


@pytest.mark.data
async def test_real_runs_become_the_cases_that_their_file_makes(
    settings: Settings, log: Database, data_dir: Path
) -> None:
    """By way of the log, as their agents would have published them; personal data is redacted on the way."""
    tools = of_file(data_dir / "agent-runs" / "policies" / "tools.json")
    some = [
        one.run for one in islice(read(data_dir / "agent-runs" / "runs.jsonl.gz"), 0, 640, 40) if isinstance(one, Found)
    ]
    await fill(settings, {run.run_id: NOON for run in some}, [to_played(run) for run in some])
    compared = 0
    for run in some:
        kinds = in_domain(tools, run.domain)
        try:
            theirs = case_of(run, "x", kinds)
        except NoCase:
            continue
        path = (await asyncio.to_thread(of_run, run.run_id, kinds=kinds)).save()
        ours = next(one for one in load.load(path.parent)[0] if one.path == str(path))
        said = [text for turn in ours.turns if (text := without_tokens(turn))]
        assert len(said) == len(theirs.turns)
        assert all(one == other or "[" in one for one, other in zip(said, theirs.turns, strict=True))
        assert [(one.tool, one.kind) for one in ours.recorded] == [(one.tool, one.kind) for one in theirs.recorded]
        wrote = [one for one in theirs.recorded if one.kind == "write" and one.error is None]
        assert [rule.tool for rule in ours.expect.writes or ()] == [one.tool for one in wrote]
        assert ours.expect.hands_off == outcome_of(run, kinds).handed_off
        # What the run did meets what is suggested: the case passes on the very run that it was made from.
        events = log.read_now(lambda conn, case=ours, id=run.run_id: store.read_events(conn, case.agent, id))  # type: ignore[misc]
        assert passed(evaluate(ours, logged.outcome_of(events, kinds)))
        compared += 1
    assert compared >= 12


def review(settings: Settings, state: str) -> None:
    """Two reviewers failed run r-1; with `state` of its item in the queue."""
    url = settings.database_for(subjects.REVIEWER_SAMPLER)
    migrate(url, subjects.REVIEWER_SAMPLER)
    database = Database(url, name="test")
    key = {"agent": "desk", "run_id": "r-1", "track": "live"}
    row = {**key, "mode": "live", "ticket": None, "rate": 1.0, "draw": 0.5, "day": "2026-11-22", "key_hash": "",
           "sampled_at": 0.0, "state": state, "verdict": "fail" if state == "settled" else None}  # fmt: skip
    said = {**key, "event": "e", "claim": "", "verdict": "fail", "reasons": '["wrong_fact"]', "note": "it is 25",
            "seconds": None, "judged_at": 1.0, "counts": 1}  # fmt: skip
    try:
        with database.engine.begin() as conn:
            conn.execute(tables.Queued.__table__.insert(), row)
            for by, corrected in (("ana", ""), ("bo", "It costs 25.\n---\nexpect: {}")):
                conn.execute(tables.Judgement.__table__.insert(), {**said, "by": by, "corrected": corrected})
    finally:
        database.close()


async def test_what_reviewers_said_stands_as_comments_once_their_verdict_stands(
    js: JetStreamContext, log: Database, settings: Settings
) -> None:
    a_run(log)
    review(settings, "settled")
    path = (await asyncio.to_thread(of_run, "r-1")).save()
    text = path.read_text()
    assert "# Reasons: wrong_fact\n# Note: it is 25\n# Note: it is 25\n" in text
    assert "# It costs 25.\n# ---\n# expect: {}\nexpect: {}\n" in text
    assert the_case().expect == Expect()


async def test_what_one_reviewer_said_is_not_told_before(
    js: JetStreamContext, log: Database, settings: Settings
) -> None:
    a_run(log)
    review(settings, "judged")
    text = of_run("r-1", by="eva", corrected="Mine: 25.").text  # in a running loop, as a web page would
    assert "Mine: 25." in text and "as it should have been by eva:" in text
    assert "it is 25" not in text and "wrong_fact" not in text and "It costs" not in text


async def test_without_a_server_the_kinds_are_the_runs_own(
    log: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(log)
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    assert (await command("add", "r-1")).exit_code == 0
    assert the_case().kinds == {"issue_refund": "other", "look_up": "other"}
    assert the_case().expect.writes == ()


JUDGES = """\
def refunds(conversation, outcome):
    assert conversation[0]["role"] == "customer" and outcome["calls"]
    return {"passed": "charged" in conversation[0]["text"], "why": "by the words"}

def always(conversation, outcome):
    return True

async def silent(conversation, outcome):
    raise ValueError("no key")
"""


async def test_a_judge_is_held_against_what_people_agreed_on(
    js: JetStreamContext, log: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_judges.py").write_text(JUDGES)
    # People pass 26 of 40 runs and the judge 24 of these; it fails 13 of the 14 that people fail: 37 agreed.
    for number in range(40):
        passes = number < 26
        seems = number < 24 or number == 39
        a_run(log, f"r-{number}", said="I was charged twice" if seems else "Where is it?")
        judged(log, f"r-{number}", "pass" if passes else "fail")
    a_run(log, "nobody-said")
    a_run(log, "unsure")
    judged(log, "unsure", "unsure")
    done = await command("judge", "desk", "own_judges:refunds", "--json")
    assert done.exit_code == 0, done.output
    (row,) = map(json.loads, done.stdout.splitlines())
    # By chance both would agree on (26 * 25 + 14 * 15) / 40² = 0.5375: kappa (37/40 - 0.5375) / 0.4625.
    assert (row["runs"], row["agreed"], row["kappa"], row["trusted"]) == (40, 37, 0.838, True)
    done = await command("judge", "desk", "own_judges:always")
    assert done.exit_code == 1 and "agreed with people on 26 of 40 runs, kappa 0.00" in done.output
    done = await command("judge", "desk", "own_judges:silent")
    assert done.exit_code == 1 and "no answer on run r-0: it raised ValueError: no key" in done.output
    text = Path("evals/desk/judges.yaml").read_text()
    assert text.count("judge: own_judges:") == 3 and datetime.now(UTC).date().isoformat() in text
    assert (await command("judge", "shop", "own_judges:always")).exit_code == 1

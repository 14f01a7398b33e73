"""The server configuration that we ship: people, help desks and drills can do their work and nothing else."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import typer
from nats.js.errors import NotFoundError
from typer.testing import CliRunner

import shipped_server
from gate_helpers import pair
from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.reviews import ReviewJudged
from midwatch.runtime.settings import Settings
from midwatch_services.commands import ack, evals
from midwatch_services.evals.verdicts import passed_gate
from midwatch_services.pager.watch import lag
from midwatch_services.reviewer_sampler.judging.desk import Desk
from pager_helpers import FILE, SECRET, listening, pager, say, write_file
from review_helpers import begin, judged, put_card, said, sampler
from shipped_server import AGENT, KEYS, Connect


@pytest.fixture
def settings_in(server: str, tmp_path: Path) -> Settings:
    """Settings of a service in its own role."""
    return Settings(home=tmp_path / "home", nats_url=f"nats://services:pw-services@{server}", http_port=0)


# Fixtures of this file
server, connect, declared = shipped_server.server, shipped_server.connect, shipped_server.declared


async def test_a_reviewer_judges_and_does_nothing_else(connect: Connect) -> None:
    async with connect("reviewer") as reviewer:
        assert await reviewer.may_publish(subjects.review(AGENT, "judged"))
        assert not await reviewer.may_publish(subjects.review(AGENT, "sampled"))
        assert not await reviewer.may_publish(subjects.key_subject(subjects.SWITCH, subjects.FLEET_KEY))


async def test_what_people_do_is_recorded_by_the_console_alone(connect: Connect) -> None:
    for user, may in (
        ("services", True),
        ("operator", False),
        ("reviewer", False),
        ("help-desk", False),
        (AGENT, False),
    ):
        async with connect(user) as one:
            assert await one.may_publish(subjects.audit(AGENT, "acted")) is may, user


async def test_the_console_takes_runs_for_reviewers_with_the_services_rights(connect: Connect) -> None:
    async with connect("services") as one, connect("help-desk") as other:
        for verb in ("take", "extend", "release"):
            assert await one.may_publish(subjects.claim(AGENT, verb))
            assert not await other.may_publish(subjects.claim(AGENT, verb))
        assert await one.may_publish(subjects.review(AGENT, "judged"))


READ_BY_A_REVIEWER = ("sampled", "added", "rated", "agreed", "disputed", "summed", "committed", "revealed")


@pytest.mark.usefixtures("declared")
async def test_a_reviewer_hears_what_stands_and_nothing_of_what_others_said(connect: Connect) -> None:
    async with connect("reviewer") as reviewer, connect("admin") as admin:
        js = admin.nc.jetstream()
        judged = subjects.review(AGENT, "judged")
        seq = (await js.publish(judged, b'{"secret": 1}')).seq
        await js.publish(subjects.review(AGENT, "agreed"), b'{"open": 1}')
        get = f"$JS.API.DIRECT.GET.{subjects.GOVERNANCE}"
        assert await reviewer.request(f"{get}.{subjects.review(AGENT, 'agreed')}") == b'{"open": 1}'
        for body in (f'{{"seq": {seq}}}', f'{{"last_by_subj": "{judged}"}}', f'{{"multi_last": ["{judged}"]}}'):
            answer = await reviewer.request(f"{get}.{subjects.review(AGENT, 'agreed')}", body.encode())
            assert b"secret" not in answer, body
        for event in READ_BY_A_REVIEWER:
            assert await reviewer.may_subscribe(subjects.review("*", event)), event
            assert await reviewer.may_publish(f"{get}.{subjects.review(AGENT, event)}"), event
        closed = (f"{get}.{judged}", get, f"$JS.API.STREAM.MSG.GET.{subjects.GOVERNANCE}",
                  f"$JS.API.CONSUMER.CREATE.{subjects.GOVERNANCE}",
                  f"$JS.API.CONSUMER.MSG.NEXT.{subjects.GOVERNANCE}.{subjects.REVIEWER_SAMPLER_VERDICTS}")  # fmt: skip
        assert [subject for subject in closed if await reviewer.may_publish(subject)] == []
        for subject in (judged, subjects.review("*", "judged"), "midwatch.review.>", "midwatch.claim.>", ">"):
            assert not await reviewer.may_subscribe(subject), subject


@pytest.mark.usefixtures("declared")
async def test_a_reviewer_takes_a_run_and_judges_it_with_no_more_rights(
    connect: Connect, settings_in: Settings
) -> None:
    async with connect("admin") as admin:
        js = admin.nc.jetstream()
        await put_card(js, AGENT)
        async with sampler(settings_in), connect("reviewer") as reviewer:
            await begin(js, "r-1", agent=AGENT)
            desk = Desk(reviewer.nc, "ann")
            held = await desk.take()
            assert (held.run_id, held.agent) == ("r-1", AGENT)
            assert (await desk.extend(held)).until is not None
            data = ReviewJudged(run_id="r-1", agent=AGENT, verdict="pass", by="ann", claim=held.claim)
            await desk.judge(data)
            await judged(js)
            assert (await desk.take()).reason == "nothing waits for ann"
            assert reviewer.denied == []
        [(_, agreed)] = await said(js, "agreed", agent=AGENT)
        assert agreed.by == ["ann"]


@pytest.mark.usefixtures("declared")
async def test_the_person_on_call_takes_an_alert_on_with_the_operators_rights(
    connect: Connect, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect("services") as services:
        await say(services.nc.jetstream(), "raised", "a-1", agent=AGENT)
    monkeypatch.setenv("NATS_URL", f"nats://operator:pw-operator@{server}")
    app = typer.Typer()
    ack.register(app)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["a-1", "--by", "ann"])
    assert done.exit_code == 0, done.output
    async with connect("services") as services:
        message = await services.nc.jetstream().get_last_msg(subjects.GOVERNANCE, subjects.alert(AGENT, "acknowledged"))
    assert codec.decode(message.subject or "", message.data or b"").data.by == "ann"


@pytest.mark.usefixtures("declared")
async def test_an_operator_publishes_what_the_gate_said_and_reads_it_back_and_nobody_else_says_it(
    connect: Connect, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, found in zip(("new", "old"), pair(0, 0, 60), strict=True):
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(found))
    monkeypatch.setenv("NATS_URL", f"nats://operator:pw-operator@{server}")
    app = typer.Typer()
    evals.register(app)
    files = ["--result", str(tmp_path / "new.json"), "--baseline", str(tmp_path / "old.json")]
    done = await asyncio.to_thread(CliRunner().invoke, app, ["eval", "gate", AGENT, "--publish", *files])
    assert done.exit_code == 0, done.output
    done = await asyncio.to_thread(CliRunner().invoke, app, ["eval", "history", AGENT, "--json"])
    assert '"verdict":"passed"' in done.stdout
    async with connect("services") as services:
        assert await passed_gate(services.nc, AGENT, "new") is not None
        assert services.denied == []
    subject = subjects.evaluated(AGENT, "completed")
    for name in ("services", "reviewer", "help-desk", "drill", AGENT):
        async with connect(name) as other:
            assert not await other.may_publish(subject), name


@pytest.mark.usefixtures("declared")
async def test_the_pager_does_all_that_it_does_with_the_services_rights(
    connect: Connect, server: str, settings_in: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    with listening() as people:
        write_file(settings_in, FILE % {"url": people.url})
        people.reply = lambda call: 410 if call.path == "/ann" else 200
        async with pager(settings_in), connect("services") as services:
            js = services.nc.jetstream()
            await say(js, "raised", "a-1", agent=AGENT)
            await eventually(lambda: people.at("/ann"))
            subject = subjects.alert(subjects.FLEET, "raised")

            async def dead() -> bool:
                try:
                    message = await js.get_last_msg(subjects.GOVERNANCE, subject)
                except NotFoundError:
                    return False
                return bool(codec.decode(subject, message.data or b"").data.rule == "channel_dead")

            await eventually(dead)
            assert await lag(services.nc, subjects.RUNS, subjects.COST_WATCHDOG) == (0, 0.0)
            assert services.denied == []


CASE_EVENTS = ("accepted", "returned", "closed")


@pytest.mark.usefixtures("declared")
async def test_a_help_desk_hears_of_cases_and_says_what_became_of_them(connect: Connect) -> None:
    async with connect("help-desk") as desk, connect("services") as services:
        heard = await desk.nc.subscribe("midwatch.case.>")
        await desk.nc.flush()
        await services.nc.jetstream().publish(subjects.case(AGENT, "opened"), b"{}")
        assert (await heard.next_msg(timeout=5)).subject == subjects.case(AGENT, "opened")
        for event in CASE_EVENTS:
            assert (await desk.nc.jetstream().publish(subjects.case(AGENT, event), b"{}")).stream == subjects.GOVERNANCE
        assert (await desk.nc.jetstream().publish(subjects.run(AGENT, "human_acted"), b"{}")).stream == subjects.RUNS


NOT_FOR_A_HELP_DESK = [
    subjects.case(AGENT, "opened"),
    subjects.case(AGENT, "offered"),
    subjects.run(AGENT, "finished"),
    subjects.key_subject(subjects.SWITCH, subjects.FLEET_KEY),
    subjects.key_subject(subjects.CASES, f"{AGENT}.r1"),
    subjects.direct_get(subjects.SWITCH, subjects.FLEET_KEY),
    "$JS.API.STREAM.MSG.GET.MIDWATCH_RUNS",
    "$JS.API.CONSUMER.CREATE.MIDWATCH_GOVERNANCE",
    "_INBOX.operator.x",
]


async def test_a_help_desk_does_nothing_else(connect: Connect) -> None:
    async with connect("help-desk") as desk:
        assert [subject for subject in NOT_FOR_A_HELP_DESK if await desk.may_publish(subject)] == []
        for subject in ("midwatch.run.>", "midwatch.control.>", "$KV.>", "_INBOX.>", "_INBOX.operator.>", ">"):
            assert not await desk.may_subscribe(subject), subject


@pytest.mark.usefixtures("declared")
async def test_a_drills_instances_do_what_any_agent_may(connect: Connect) -> None:
    async with connect("drill") as drill:
        js = drill.nc.jetstream()
        assert (await js.publish(subjects.run(AGENT, "started"), b"{}")).stream == subjects.RUNS
        assert (await js.publish(subjects.presence(AGENT, "drill-1"), b"{}")).stream == subjects.PRESENCE
        claim = subjects.key_subject(subjects.CASES, subjects.case_key(AGENT, "r1"))
        assert (await js.publish(claim, b"{}")).stream == subjects.key_stream(subjects.CASES)
        for bucket, key in KEYS:
            assert await drill.request(subjects.direct_get(bucket, key)) == b"{}"
        assert await drill.may_subscribe("midwatch.control.>")


NOT_FOR_A_DRILL = [
    *(subjects.key_subject(subjects.SWITCH, key) for key in subjects.switch_keys(AGENT)),
    subjects.key_subject(subjects.AGENTS, AGENT),
    subjects.key_subject(subjects.ROUTES, AGENT),
    *(subjects.case(AGENT, event) for event in ("opened", "offered", *CASE_EVENTS)),
    subjects.switch(AGENT, "drilled"),
    subjects.alert(AGENT, "raised"),
    subjects.control(subjects.FLEET_KEY),
    "$JS.API.DIRECT.GET.MIDWATCH_RUNS",
    "$JS.API.STREAM.MSG.GET.MIDWATCH_RUNS",
    "$JS.API.CONSUMER.CREATE.MIDWATCH_RUNS",
    "_INBOX.operator.x",
]


async def test_a_drills_instances_do_nothing_else(connect: Connect) -> None:
    async with connect("drill") as drill:
        assert [subject for subject in NOT_FOR_A_DRILL if await drill.may_publish(subject)] == []
        for subject in ("midwatch.run.>", "midwatch.case.>", "$KV.>", "_INBOX.>", "_INBOX.operator.>", ">"):
            assert not await drill.may_subscribe(subject), subject


@pytest.mark.usefixtures("declared")
async def test_the_services_open_cases_and_claim_them(connect: Connect) -> None:
    async with connect("services") as services:
        js = services.nc.jetstream()
        for event in ("opened", "offered", *CASE_EVENTS):
            assert (await js.publish(subjects.case(AGENT, event), b"{}")).stream == subjects.GOVERNANCE
        claim = subjects.key_subject(subjects.CASES, subjects.case_key(AGENT, "r1"))
        assert (await js.publish(claim, b"{}")).stream == subjects.key_stream(subjects.CASES)


@pytest.mark.usefixtures("declared")
async def test_the_operator_takes_cases_signs_drills_and_writes_off_instances(connect: Connect) -> None:
    async with connect("operator") as operator:
        js = operator.nc.jetstream()
        for event in CASE_EVENTS:
            assert (await js.publish(subjects.case(AGENT, event), b"{}")).stream == subjects.GOVERNANCE
        assert (await js.publish(subjects.switch(AGENT, "drilled"), b"{}")).stream == subjects.GOVERNANCE
        assert (await js.publish(subjects.presence(AGENT, "pod-1"), b"{}")).stream == subjects.PRESENCE
        for subject in (
            subjects.case(AGENT, "opened"),
            subjects.switch(AGENT, "contained"),
            subjects.run(AGENT, "finished"),
            subjects.key_subject(subjects.CASES, f"{AGENT}.r1"),
        ):
            assert not await operator.may_publish(subject), subject

"""Processes killed in the middle of a replay of real runs: nothing acknowledged is lost, nothing counts twice."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Card
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.cost_watchdog import differs, policy
from midwatch_services.cost_watchdog.alerts import Decision, RaiseAlert
from midwatch_services.cost_watchdog.decide import Clock, decide, ticket_of
from midwatch_services.cost_watchdog.observe import observe
from midwatch_services.cost_watchdog.state import RunState, Subject, TicketState
from stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.data]


@pytest.fixture
def runs_file(data_dir: Path) -> str:
    return str(data_dir / "agent-runs" / "runs.jsonl.gz")


def rows(stack: Stack, service: str, query: str) -> list[sa.Row]:
    url = Settings(home=stack.home, database_url=stack.environment.get("MIDWATCH_DATABASE_URL")).database_for(service)
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(query)))
    finally:
        engine.dispose()


async def acknowledged(stack: Stack, consumer: str) -> int:
    info = await stack.client.jetstream().consumer_info(subjects.RUNS, consumer, timeout=5)
    return info.ack_floor.stream_seq if info.ack_floor else 0


def published(messages: list[tuple[str, bytes]]) -> Counter[tuple[str, str]]:
    return Counter((subject.split(".")[2], json.loads(body)["id"]) for subject, body in messages)


async def assert_the_log_is_the_stream(stack: Stack) -> int:
    """Every event of the stream is in the log once, and the runs' counts are those of their events."""
    messages = await stack.messages()
    wanted = published(messages)
    logged = Counter((agent, id) for agent, id in rows(stack, "logger", "SELECT agent, id FROM logger_events"))
    assert logged == Counter(set(wanted))
    tools = Counter(
        json.loads(body)["data"]["run_id"]
        for body in {json.loads(body)["id"]: body for _, body in messages}.values()
        if json.loads(body)["type"] == "midwatch.run.tool_called.v1"
    )
    folded = {run_id: n for run_id, n in rows(stack, "logger", "SELECT run_id, tool_calls FROM logger_runs") if n}
    assert folded == dict(tools)
    return len(logged)


async def test_a_logger_killed_in_the_middle_of_a_replay_loses_and_doubles_nothing(
    stack: Stack, runs_file: str, say: Callable[[str], None]
) -> None:
    logger = await stack.start("logger")
    replay = await stack.spawn("replay", runs_file, "--speed", "max", "--json")
    kills = 0
    for floor in (1_000, 4_000, 9_000):

        async def far_enough(floor: int = floor) -> bool:
            return await acknowledged(stack, "logger") >= floor

        await eventually(far_enough, within=60)
        await logger.kill()
        kills += 1
        logger = await stack.start("logger")
    assert await asyncio.wait_for(replay.wait(), 120) == 0
    await stack.caught_up("logger")
    count = await assert_the_log_is_the_stream(stack)
    say(f"logger killed {kills} times: {count} events, each in the log once")


async def test_nats_killed_in_the_middle_of_a_replay_loses_and_doubles_nothing(
    stack: Stack, runs_file: str, say: Callable[[str], None]
) -> None:
    await stack.start("logger")
    replay = await stack.spawn("replay", runs_file, "--speed", "max", "--json")

    async def a_third_is_in() -> bool:
        return await acknowledged(stack, "logger") >= 4_000

    await eventually(a_third_is_in, within=60)
    stack.nats.kill()
    await stack.nats.restart()
    assert await asyncio.wait_for(replay.wait(), 180) == 0
    await stack.caught_up("logger")
    count = await assert_the_log_is_the_stream(stack)
    runs = rows(stack, "logger", "SELECT count(*) FROM logger_runs")[0][0]
    assert runs == 653
    say(f"nats-server killed: {count} events of {runs} runs, each in the log once")


def named(rule: str, dedupe_key: str, event_id: str | None) -> tuple[str, str, str]:
    """An alert by what no order of the stream changes. Loops are judged in each run's own order; at which event a sum
    is reached, or a cost first differs, is another where some events were given to a process that died."""
    cause = dedupe_key.partition("/")[2]
    return (rule, cause, (event_id or "") if rule.startswith("loop_") else "")


def alerts_without_a_crash(messages: list[tuple[str, bytes]]) -> set[tuple[str, str, str]]:
    """What the watchdog raises on the same stream if nothing ever kills it."""
    runs: dict[Subject, RunState] = {}
    tickets: dict[Subject, TicketState] = {}
    models: dict[Subject, differs.ModelState] = {}
    raised: list[Decision] = []
    limits = policy.of(Card(agent="any", owner="", purpose="", can=[]))
    for subject, body in messages:
        read = codec.decode_run(subject, body)
        event = observe(read)
        run = runs.get(event.run, RunState())
        name = ticket_of(run, event)
        ticket = event.run._replace(name=name) if name else None
        state = tickets.get(ticket, TicketState()) if ticket else None
        outcome = decide(run, state, event, limits, Clock(utc_now(), None))
        runs[event.run] = outcome.run
        if ticket and outcome.ticket:
            tickets[ticket] = outcome.ticket
        raised += outcome.decisions
        if (call := differs.compared(read, event)) is not None:
            models[call.model], of_model = differs.judge(models.get(call.model, differs.ModelState()), call)
            raised += of_model
    return {named(one.rule, one.dedupe_key, one.event_id) for one in raised if isinstance(one, RaiseAlert)}


async def killed_twice(stack: Stack, name: str) -> None:
    """Starts a service, kills it at two places of the stream, and lets it read to the end. What the dead one held comes
    back before the gaps that it leaves in runs are closed."""
    js = stack.client.jetstream()
    declared = await js.consumer_info(subjects.RUNS, name)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(ack_wait=2.0))
    service = await stack.start(name)
    for floor in (2_000, 6_000):

        async def far_enough(floor: int = floor) -> bool:
            return await acknowledged(stack, name) >= floor

        await eventually(far_enough, within=60)
        await service.kill()
        service = await stack.start(name)
    await stack.caught_up(name)


async def test_killing_watchdog_and_sampler_changes_no_alert_or_sample(
    stack: Stack, runs_file: str, say: Callable[[str], None]
) -> None:
    replay = await stack.spawn("replay", runs_file, "--speed", "max", "--json")
    assert await asyncio.wait_for(replay.wait(), 180) == 0
    await asyncio.gather(*(killed_twice(stack, name) for name in ("cost-watchdog", "reviewer-sampler")))
    governance = [(subject, json.loads(body)["data"]) for subject, body in await stack.messages(subjects.GOVERNANCE)]
    raised = [data for subject, data in governance if subject.endswith(".raised")]
    # What is usual for an agent, and so too fast, hangs on which runs ended first: what a dead one held comes later.
    judged = [data for data in raised if data["rule"] != "velocity"]
    alerts = {named(data["rule"], data["dedupe_key"], data["event_id"]) for data in judged}
    assert alerts == alerts_without_a_crash(await stack.messages())
    assert {*Counter(data["alert_id"] for data in raised).values()} == {1}
    samples = Counter(data["run_id"] for subject, data in governance if subject.endswith(".sampled"))
    assert set(samples.values()) == {1}
    queued = rows(stack, "reviewer-sampler", "SELECT run_id FROM reviewer_sampler_queue")
    assert {run_id for (run_id,) in queued} == set(samples)
    assert rows(stack, "reviewer-sampler", "SELECT count(*) FROM reviewer_sampler_runs")[0][0] == 653
    say(f"services killed twice each: {len(raised)} alerts and {len(samples)} samples, each once")

"""Replays, through the real SDK and a real server: what the file says is what is published, once."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from helpers import eventually
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.runtime.database import Database
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE as LOGGER
from midwatch_services.replay.formats import Bad
from midwatch_services.replay.player import Played
from midwatch_services.replay.session import Totals, Wish, replay


def run_of(run_id: str, **fields: Any) -> dict[str, Any]:
    """A run of four messages, one model call with tokens, one failed call of a tool and one that hands off."""
    return {
        "run_id": run_id,
        "schema": "agentrun/1",
        "agent": {"name": "Desk", "model": "m-1", "llm_args": {"api_key": "sk-secret"}},
        "domain": "shop",
        "task_id": "7",
        "timing": "recorded",
        "started_at": "2025-01-01T10:00:00",
        "ended_at": "2025-01-01T10:00:09",
        "termination_reason": "user_stop",
        "outcome": {"reward": 0.0},
        "messages": [
            {"role": "user", "content": "Where is my order?", "ts": "2025-01-01T10:00:01"},
            {
                "role": "assistant",
                "content": "I will look.",
                "ts": "2025-01-01T10:00:02",
                "cost_usd": 0.25,
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                "tool_calls": [
                    {"id": "x", "name": "look", "args": {"id": 1}, "requestor": "assistant"},
                    {"id": "x", "name": "transfer_to_human_agents", "args": {"summary": "Lost"}},
                ],
            },
            {"role": "tool", "tool_call_id": "x", "content": "Error: no such order", "error": True},
            {"role": "tool", "tool_call_id": "x", "content": "Transfer successful", "ts": "2025-01-01T10:00:05"},
            {"role": "user", "content": "###TRANSFER###", "ts": "2025-01-01T10:00:06"},
        ],
        **fields,
    }


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(run_of(run_id)) + "\n" for run_id in ("run-1", "run-2")))
    return path


@asynccontextmanager
async def logging_to(settings: Settings) -> AsyncIterator[Database]:
    """The logger at work, and its log."""
    started = asyncio.Event()
    task = asyncio.create_task(run_services([LOGGER], settings, started=lambda _: started.set(), restart=False))
    await asyncio.wait({task, asyncio.ensure_future(started.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert started.is_set(), task.exception()
    log = Database(settings.database_for(subjects.LOGGER), name="test", must_exist=True)
    try:
        yield log
    finally:
        log.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def logger(js: JetStreamContext, settings: Settings) -> AsyncIterator[Database]:
    async with logging_to(settings) as log:
        yield log


class Heard:
    """What a replay told while it went on."""

    def __init__(self) -> None:
        self.played: list[Played] = []
        self.bad: list[Bad] = []

    def __call__(self, path: Path, position: int, entry: Played | Bad | None) -> None:
        if isinstance(entry, Played):
            self.played.append(entry)
        elif isinstance(entry, Bad):
            self.bad.append(entry)


async def published(js: JetStreamContext) -> list[RunEvent]:
    """Every run event on the stream, in the order in which it came there."""
    total = (await js.stream_info(subjects.RUNS)).state.messages
    unacknowledged = ConsumerConfig(ack_policy=AckPolicy.NONE)
    reader = await js.pull_subscribe("midwatch.run.>", stream=subjects.RUNS, config=unacknowledged)
    found: list[RunEvent] = []
    while len(found) < total:
        found += [codec.decode_run(message.subject, message.data) for message in await reader.fetch(1000, timeout=5)]
    await reader.unsubscribe()
    return found


async def test_a_run_is_published_as_its_agent_would_have(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    await replay(Wish([run_file], limit=1), settings, Heard())
    events = await published(js)
    assert [event.event for event in events] == [
        "started", "said", "model_called", "said", "tool_called", "tool_called", "handed_off", "said", "finished",
    ]  # fmt: skip
    assert [event.time.second for event in events] == [0, 1, 2, 2, 2, 5, 5, 6, 9]
    assert [event.data.seq for event in events] == list(range(9))
    assert {(event.agent, event.data.run_id, event.data.mode) for event in events} == {("shop-desk", "run-1", "replay")}
    started, _, model, _, failed, _, handed_off, _, finished = (event.data for event in events)
    assert (started.input, started.version) == ("Where is my order?", "m-1")
    assert (model.cost_usd, model.usage.input_tokens, model.usage.output_tokens) == ("0.25", 100, 10)
    assert (failed.tool, failed.kind, failed.arguments, failed.error) == (
        "look",
        "other",
        {"id": 1},
        "Error: no such order",
    )
    assert (handed_off.to, handed_off.summary) == ("human", "Lost")
    assert finished.resolution == "handed_off"


async def test_no_key_and_no_model_argument_leaves_the_file(
    nc: Client, js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    await replay(Wish([run_file]), settings, Heard())
    reader = await js.pull_subscribe("midwatch.run.>", stream=subjects.RUNS)
    bodies = b"".join(message.data for message in await reader.fetch(18, timeout=5))
    assert b"m-1" in bodies
    assert b"sk-secret" not in bodies
    assert b"llm_args" not in bodies


async def test_replaying_again_adds_nothing(
    js: JetStreamContext, logger: Database, settings: Settings, run_file: Path
) -> None:
    first = await replay(Wish([run_file]), settings, Heard())
    await eventually(lambda: sum(row["events"] for row in logger.read_now(store.read_runs)) == 18)
    again = Heard()
    second = await replay(Wish([run_file]), settings, again)
    assert (first.runs, first.published, first.known) == (2, 18, 0)
    assert (second.runs, second.published, second.known) == (2, 0, 18)
    assert all(played.known for played in again.played)
    assert (await js.stream_info(subjects.RUNS)).state.messages == 18


async def test_replaying_again_before_the_log_has_it_adds_nothing_to_the_stream(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    for _ in range(2):
        await replay(Wish([run_file]), settings, Heard())
    assert (await js.stream_info(subjects.RUNS)).state.messages == 18


async def test_bad_lines_and_unknown_files_are_named_and_the_rest_is_played(
    js: JetStreamContext, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    run_file.write_text("{broken\n" + run_file.read_text())
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    totals = await replay(Wish([other, run_file]), settings, heard := Heard())
    assert [bad.place for bad in totals.bad] == [str(other), f"{run_file}:1"]
    assert heard.bad == totals.bad
    assert totals.runs == 2


async def test_only_the_runs_of_one_agent_are_played_if_asked(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    assert (await replay(Wish([run_file], agent="shop-other"), settings, Heard())).runs == 0
    assert (await replay(Wish([run_file], agent="shop-desk"), settings, Heard())).runs == 2


async def test_the_recorded_pace_is_kept_at_a_multiple(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await replay(Wish([run_file], speed=30.0, limit=1), settings, Heard())
    assert loop.time() - began >= 0.3  # nine seconds, thirty times as fast


async def test_a_halted_switch_is_let_be_unless_it_is_to_be_obeyed(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    await apply_card(js)
    await Switchboard(js).halt_agent("shop-desk", reason="test", by="tester")
    await replay(Wish([run_file], limit=1), settings, Heard())
    assert len(await published(js)) == 9

    await replay(Wish([run_file], limit=1, obey=True), settings, heard := Heard())
    obeyed = (await published(js))[9:]
    assert [event.event for event in obeyed] == ["started", "finished"]
    assert obeyed[1].data.resolution == "halted"
    assert obeyed[0].data.run_id.startswith("run-1-obey-")
    assert [(played.resolution, played.events) for played in heard.played] == [("halted", 2)]


async def test_an_obeying_replay_of_a_running_agent_is_whole(
    js: JetStreamContext, settings: Settings, run_file: Path
) -> None:
    await apply_card(js)
    await replay(Wish([run_file], limit=1, obey=True), settings, Heard())
    assert len(await published(js)) == 9


async def apply_card(js: JetStreamContext) -> None:
    card = control.Card(agent="shop-desk", owner="Tester", purpose="Tests.", can=["Test"])
    await js.publish(subjects.key_subject(subjects.AGENTS, "shop-desk"), control.encode(card))
    await Switchboard(js).resume_agent("shop-desk", reason="test", by="tester")


def source_counts(path: Path) -> dict[str, tuple[int, int, int, Decimal]]:
    """Of each run, straight from the file: messages with text, tool calls of the agent, errors among them, cost."""
    counts = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for run in map(json.loads, lines):
            said = calls = errors = 0
            cost = Decimal(0)
            for message in run["messages"]:
                if message["role"] == "tool":
                    calls += message["requestor"] == "assistant"
                    errors += message["requestor"] == "assistant" and message["error"]
                elif message["role"] in ("user", "assistant"):
                    said += bool((message["content"] or "").strip())
                    if message["role"] == "assistant" and message.get("cost_usd"):
                        cost += Decimal(str(message["cost_usd"])).quantize(Decimal("1e-12"))
            counts[run["run_id"]] = (said, calls, errors, cost)
    return counts


@pytest.mark.data
@pytest.mark.proof
async def test_the_real_runs_agree_with_their_source_run_by_run(
    js: JetStreamContext, logger: Database, settings: Settings, data_dir: Path
) -> None:
    source = source_counts(data_dir / "agent-runs" / "runs.jsonl.gz")
    totals: Totals = await replay(Wish([data_dir / "agent-runs" / "runs.jsonl.gz"]), settings, heard := Heard())
    assert (totals.runs, totals.bad) == (653, [])
    assert {
        p.run_id: (p.messages, p.tool_calls, p.tool_errors, Decimal(p.cost_usd or 0)) for p in heard.played
    } == source

    said: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    cost: dict[str, Decimal] = dict.fromkeys(source, Decimal(0))
    for event in await published(js):
        run_id, data = event.data.run_id, event.data
        said[run_id] += event.event == "said"
        calls[run_id] += event.event == "tool_called"
        errors[run_id] += event.event == "tool_called" and data.error is not None
        cost[run_id] += Decimal(getattr(data, "cost_usd", None) or 0)
    assert {run: (said[run], calls[run], errors[run], cost[run]) for run in cost} == source

    await agrees_with_the_log(logger, source, totals)


@pytest.mark.data
@pytest.mark.postgres
@pytest.mark.proof
async def test_the_real_runs_agree_with_their_source_on_postgresql_too(
    js: JetStreamContext, settings: Settings, postgres_url: str, data_dir: Path
) -> None:
    on_postgres = settings.model_copy(update={"database_url": postgres_url})
    file = data_dir / "agent-runs" / "runs.jsonl.gz"
    async with logging_to(on_postgres) as log:
        totals = await replay(Wish([file]), on_postgres, Heard())
        await agrees_with_the_log(log, source_counts(file), totals)
        again = await replay(Wish([file]), on_postgres, Heard())
        assert (again.published, again.known) == (0, totals.published)


async def agrees_with_the_log(
    log: Database, source: dict[str, tuple[int, int, int, Decimal]], totals: Totals
) -> None:  # fmt: skip
    """Every event is logged, and each run's row has the source's counts and reported cost."""
    await eventually(lambda: log.read_now(logged_events) == totals.published, within=30)
    rows = {row["run_id"]: row for row in log.read_now(store.read_runs)}
    counts = {run: (row["messages"], row["tool_calls"], row["tool_errors"]) for run, row in rows.items()}
    assert counts == {run: counts[:3] for run, counts in source.items()}
    reported = {run: Decimal(row["cost_usd"]) for run, row in rows.items() if row["cost_basis"] == "reported"}
    assert reported == {run: source[run][3] for run in reported}
    assert len(reported) == 264


def logged_events(conn: store.Connection) -> int:
    return sum(row["events"] for row in store.read_runs(conn))

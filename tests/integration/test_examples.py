"""The examples run as they stand, and publish what they say they do."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from midwatch import testing
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import CaseOffered, CaseOpened
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import cards
from midwatch_services.cards import bucket

ROOT = Path(__file__).resolve().parents[2]
AGENT = "refund-desk"


async def run(example: str, server: NatsServer, home: Path, *arguments: str) -> str:
    """What the example printed; it ended well."""
    environment = {**os.environ, "NATS_URL": server.url, "MIDWATCH_HOME": str(home)}
    environment.pop("OPENAI_API_KEY", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "examples" / example, *arguments, env=environment, stdout=-1,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def events(js: JetStreamContext) -> Counter[str]:
    """How many events of each kind are on the stream, each of which kept the contract."""
    last = (await js.stream_info(subjects.RUNS)).state.last_seq
    stored = [await js.get_msg(subjects.RUNS, seq) for seq in range(1, last + 1)]
    return Counter(codec.decode_run(message.subject or "", message.data or b"").event for message in stored)


@pytest.fixture
async def desk(js: JetStreamContext) -> JetStreamContext:
    """A server on which the example card is applied."""
    await bucket.apply(js, cards.load(ROOT / "agents" / "refund-desk.yaml"), by="test", now=utc_now())
    return js


async def test_the_ten_line_agent(desk: JetStreamContext, nats_server: NatsServer, tmp_path: Path) -> None:
    assert await run("ten_line_agent.py", nats_server, tmp_path) == "the agent answers: Your refund is on its way.\n"
    assert await events(desk) == {"started": 1, "model_called": 1, "tool_called": 2, "finished": 1}


async def test_the_ten_line_agent_gives_way_to_a_person(
    desk: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    await Switchboard(desk).halt_agent(AGENT, reason="trying it out", by="tester")
    said = await run("ten_line_agent.py", nats_server, tmp_path)
    assert said == "a person answers: We look into T-1042 ourselves (trying it out).\n"
    assert await events(desk) == {"started": 1, "handed_off": 1, "finished": 1}


async def test_the_blocking_agent(desk: JetStreamContext, nats_server: NatsServer, tmp_path: Path) -> None:
    said = await run("blocking_agent.py", nats_server, tmp_path)
    assert sorted(said.splitlines()) == [f"T-200{number}: on its way" for number in (1, 2, 3, 4)]
    assert await events(desk) == {"started": 4, "model_called": 4, "tool_called": 4, "finished": 4}


async def test_the_openai_agent_without_a_key(desk: JetStreamContext, nats_server: NatsServer, tmp_path: Path) -> None:
    assert (await run("openai_agent.py", nats_server, tmp_path)).startswith("You were charged twice")
    assert await events(desk) == {"started": 1, "model_called": 2, "tool_called": 1, "said": 1, "finished": 1}


async def test_the_taking_agent_answers_what_another_left(
    desk: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    taker = "order-status"
    await desk.publish(subjects.key_subject(subjects.AGENTS, taker), control.encode(testing.card(taker)))
    await Switchboard(desk).resume_agent(taker, reason="test", by="tester")
    case = CaseOpened(
        case_id="case-1", agent=AGENT, run_id="r1", to=f"agent:{taker}", reason="test", opened_by="test", ticket="T-1",
        input="Where is order A-1001?",
    )  # fmt: skip
    key = subjects.offer_key(taker, AGENT, "r1")
    offered = CaseOffered(taker=taker, offer_key=key, until=utc_now(), within=5.0, case=case)
    body = codec.encode(codec.envelope("case", "offered", offered, source="/services/kill-switch"))
    saying = asyncio.create_task(run("taking_agent.py", nats_server, tmp_path, "1"))

    async def answered() -> bool:
        await desk.publish(subjects.case(taker, "offered"), body)  # until it listens: it takes the case once
        return bool((await asyncio.wait({saying}, timeout=0.1))[0])

    await eventually(answered, 20)
    assert await saying == ("T-1, left by refund-desk: Order A-1001 is on its way. A person will look at the rest.\n")
    assert await events(desk) == {"started": 1, "tool_called": 1, "said": 1, "finished": 1}

"""The examples run as they stand, and publish what they say they do."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import cards
from midwatch_services.cards import bucket

ROOT = Path(__file__).resolve().parents[2]
AGENT = "refund-desk"


async def run(example: str, server: NatsServer, home: Path) -> str:
    """What the example printed; it ended well."""
    environment = {**os.environ, "NATS_URL": server.url, "MIDWATCH_HOME": str(home)}
    environment.pop("OPENAI_API_KEY", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "examples" / example, env=environment, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
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

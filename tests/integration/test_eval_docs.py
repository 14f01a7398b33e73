"""What the documentation of the replay shows is what works."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from eval_replay_helpers import REFUNDED, case, outcomes
from helpers import eventually
from midwatch.runtime.nats_server import NatsServer
from midwatch_services.evals.case import Recorded

ROOT = Path(__file__).resolve().parents[2]
HTTP, NATS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "eval-replay.md").read_text(), re.DOTALL)


async def test_the_example_target_refunds_what_was_charged_twice() -> None:
    looked_up = Recorded("lookup_order", {"order_id": "A-1001"}, {"charged_twice": 19.5}, kind="read")
    cases = [
        case("charged twice", recorded=(looked_up, REFUNDED)),
        case("names no order", turns=("Where is my money?",)),
    ]
    found = await outcomes(cases, f"{ROOT / 'examples' / 'eval_target.py'}:answer")
    assert found["charged twice"].said == ["You were charged twice. $19.50 are on their way back to you."]
    assert [(call.tool, call.answered) for call in found["charged twice"].calls] == [
        ("lookup_order", "recorded"), ("issue_refund", "recorded")]  # fmt: skip
    assert (found["names no order"].handed_off, found["names no order"].said) == (True, [])
    assert {one.model_calls for one in found.values()} == {1}


async def test_the_ten_lines_of_an_http_agent(tmp_path: Path, unused_tcp_port: int) -> None:
    code = tmp_path / "agent.py"
    code.write_text(HTTP.replace("8900", str(unused_tcp_port)))
    agent = await asyncio.create_subprocess_exec(sys.executable, code, stderr=PIPE)
    try:

        async def answers() -> list[str]:
            return (await outcomes([case()], f"http://127.0.0.1:{unused_tcp_port}"))["twice"].said

        assert await eventually(answers) == ["You were charged [19.5, 19.5]."]
    finally:
        agent.kill()
        await agent.communicate()


async def test_the_lines_of_an_agent_on_nats(tmp_path: Path, nats_server: NatsServer) -> None:
    code = tmp_path / "agent.py"
    code.write_text(re.sub(r'"nats://[^"]*"', f'"{nats_server.url}"', NATS))
    agent = await asyncio.create_subprocess_exec(sys.executable, code, stderr=PIPE)
    try:

        async def answers() -> list[str]:
            return (await outcomes([case()], "nats", nats_url=nats_server.url))["twice"].said

        assert await eventually(answers) == ["You said: I was charged twice for order A-1001."]
    finally:
        agent.kill()
        await agent.communicate()

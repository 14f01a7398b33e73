"""What the tests of cases on a real server share: agents that run, a halt, and what was stored."""

from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from helpers import eventually
from midwatch import testing
from midwatch.cases import Claims
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import CaseClaim, SwitchRule

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva"}'
LEASE = 1.0


async def apply(js: JetStreamContext, agent: str, lease: float = LEASE) -> None:
    card = control.encode(testing.card(agent, switch=SwitchRule(lease=lease)))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), RUNNING)


async def halt(js: JetStreamContext, agent: str = "desk") -> None:
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), HALTED)


async def stored(js: JetStreamContext) -> list[RunEvent]:
    count = (await js.stream_info(subjects.RUNS)).state.last_seq
    found = [await js.get_msg(subjects.RUNS, seq) for seq in range(1, count + 1)]
    return [codec.decode_run(message.subject or "", message.data or b"") for message in found]


async def finished(js: JetStreamContext, count: int) -> list[Any]:
    """What runs said as they ended, once `count` of them have."""

    async def look() -> list[Any]:
        ends = [event.data for event in await stored(js) if event.event == "finished"]
        assert len(ends) == count
        return ends

    return await eventually(look, 20)


async def claims(js: JetStreamContext) -> list[CaseClaim]:
    """Every claim that the server took, oldest first."""
    bucket = subjects.key_stream(subjects.CASES)
    count = (await js.stream_info(bucket)).state.last_seq
    found = [await js.get_msg(bucket, seq) for seq in range(1, count + 1)]
    return [msgspec.json.decode(message.data or b"", type=CaseClaim) for message in found]


def lose_first_answer(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The first answer to each claim never reaches us."""
    lost: list[bytes] = []
    heard = Claims._answered
    seen: set[str] = set()

    async def answered(self: Claims, msg: Msg) -> None:
        if msg.subject in seen:
            await heard(self, msg)
        else:
            seen.add(msg.subject)
            lost.append(msg.data)

    monkeypatch.setattr(Claims, "_answered", answered)
    return lost

"""What the tests of drills share."""

from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import said
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card, SwitchRule, ToolRule
from midwatch.contracts.governance import SwitchDrilled
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch import view

LONG_AGO = datetime.now(UTC) - timedelta(days=100)


async def apply_card(
    js: JetStreamContext, *, agent: str = "desk", applied_at: datetime | None = None, **switch: Any
) -> None:
    card = Card(
        agent=agent, owner="o", purpose="p", can=["c"], tools={"look_up": ToolRule(kind="read")},
        switch=SwitchRule(**switch), applied_at=applied_at,
    )  # fmt: skip
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))


async def is_armed(nc: Client, js: JetStreamContext) -> bool:
    """Whether an instance is armed; to be asked until it is."""
    _, instances = await view.read(nc, js)
    return any(one.armed for one in instances)


async def drilled(js: JetStreamContext) -> list[SwitchDrilled]:
    """Every result that was said."""
    return [data for event, data in await said(js) if event == "drilled"]


async def until_halted(board: Switchboard) -> None:
    async def look() -> bool:
        return (await state(board))[0] == "halted"

    await eventually(look, within=20)


async def state(board: Switchboard) -> tuple[str, str]:
    """The agent's own key: its state, and whose word that is."""
    record = (await board.read("agent.desk")).record()
    assert record is not None
    return record.state, record.by

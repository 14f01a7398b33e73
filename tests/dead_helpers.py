"""Dead letters for tests, and `midwatch dead` run in a thread of its own, as its event loop is its own."""

import asyncio
import json
from typing import Any

import typer
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

from helpers import eventually
from logged import envelope
from midwatch.contracts import codec, subjects
from midwatch.runtime.dead_letters import bury
from midwatch_services.commands import dead

SAID = subjects.run("desk", "said")
FOUR = (subjects.LOGGER, subjects.COST_WATCHDOG, subjects.REVIEWER_SAMPLER, subjects.KILL_SWITCH)
app = typer.Typer()
dead.register(app)


async def command(*arguments: str, answer: str = "") -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["dead", *arguments], input=answer)


async def rows(*arguments: str) -> list[dict[str, Any]]:
    result = await command(*arguments, "--json")
    return [json.loads(line) for line in result.stdout.splitlines()]


async def letter(js: JetStreamContext, id: str = "e-1", **fields: Any) -> None:
    """A letter of the logger, for an event that the stream no longer has, unless `fields` say otherwise."""
    made = envelope("said", by="agent", text="Hi", id=id)
    wanted: dict[str, Any] = {
        "service": subjects.LOGGER, "reason": "failed", "error": "the disk was full", "subject": SAID,
        "body": codec.encode(made), "attempts": 5, "stream": subjects.RUNS, "stream_seq": 7,
        "headers": {subjects.MSG_ID: id, subjects.TRACEPARENT: "00-aa-bb-01"}, **fields,
    }  # fmt: skip
    await bury(js, wanted.pop("service"), id=f"{id}-{wanted['stream_seq']}-{fields.get('service', '')}", **wanted)


async def left(js: JetStreamContext) -> int:
    return (await js.stream_info(subjects.DEAD)).state.messages


async def published(js: JetStreamContext) -> int:
    return (await js.stream_info(subjects.RUNS)).state.last_seq


async def retried(*arguments: str) -> Result:
    """The retry, once the server has forgotten the id."""

    async def attempt() -> Result | None:
        result = await command("retry", *arguments, "--yes")
        return None if "NOT delivered" in result.output else result

    result = await eventually(attempt)
    assert isinstance(result, Result)
    return result

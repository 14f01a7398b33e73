"""Two operators who halt and resume one agent at once: one history, and each was told the truth."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.switchboard import Switchboard
from pods import arm
from stack import Stack

pytestmark = pytest.mark.chaos

PROGRAM = Path(__file__).with_name("operator_program.py")
ROUNDS = 15  # of each operator; the bucket keeps 64 writes of a key
STATE = {"halt": "halted", "resume": "running"}


async def operators(stack: Stack, *names: str) -> list[list[dict[str, Any]]]:
    """What the commands of each told it, in order; all begin at once."""
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), name, "desk", str(ROUNDS), env=stack.environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for name in names
    ]  # fmt: skip
    said = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    return [[json.loads(line) for line in out.splitlines()] for out, _ in said]


async def test_two_operators_at_once_leave_one_history_and_are_told_the_truth(
    plain: Stack, figure: Callable[..., None]
) -> None:
    js = plain.client.jetstream()
    await arm(js)
    await plain.start("kill-switch")
    began = time.monotonic()
    told = await operators(plain, "ann", "bob")
    seconds = time.monotonic() - began
    assert [len(one) for one in told] == [2 * ROUNDS] * 2
    every = [answer for one in told for answer in one]
    assert {answer["code"] for answer in every} == {0}

    writes = [entry for entry in await Switchboard(js).writes(0, limit=200) if entry.key == "agent.desk"]
    history = {entry.revision: entry.record() for entry in writes}
    first, *rest = [record.state for record in history.values() if record]
    assert [first, *rest] == ["running" if place % 2 == 0 else "halted" for place in range(len(history))]
    assert (await Switchboard(js).read("agent.desk")).revision == max(history)

    wrote = {answer["told"]["epoch"]: answer for answer in every if answer["told"]["changed"]}
    assert sorted(wrote) == sorted(history)[1:]  # the first one let the agent run
    for answer in every:
        stood = history[answer["told"]["epoch"]]
        assert stood is not None
        assert stood.state == STATE[answer["verb"]]
        assert stood.reason == answer["told"]["record"]["reason"]
        assert (stood.reason == answer["reason"]) is answer["told"]["changed"]
    for one in told:
        epochs = [answer["told"]["epoch"] for answer in one]
        assert epochs == sorted(epochs)

    async def all_said() -> bool:
        some = await plain.messages(subjects.GOVERNANCE, "midwatch.switch.desk.*")
        moved = [json.loads(body)["data"] for subject, body in some if subject.endswith((".halted", ".resumed"))]
        assert [one["epoch"] for one in moved] == sorted(wrote)
        assert [one["record"]["reason"] for one in moved] == [wrote[epoch]["reason"] for epoch in sorted(wrote)]
        return True

    await eventually(all_said, within=15)
    met = len(every) - len(wrote)
    assert met > 0, "the two never met: nothing was shown"
    what = f"two operators, {len(wrote)} writes, {met} commands found it done: a command"
    figure(what, seconds / (2 * ROUNDS), "s", 2)

"""kill-switch dead: a halt needs it for nothing, and nothing that happened meanwhile is missing or said twice."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.switchboard import Scope, Switchboard, Written
from pods import arm, pod
from stack import Stack

pytestmark = pytest.mark.chaos


async def test_a_halt_is_proved_without_kill_switch_and_reported_by_it_later(
    stack: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(stack.client.jetstream())
    service = await stack.start("kill-switch")
    async with pod(tmp_path, stack.nats.url, "pod-1") as one, pod(tmp_path, stack.nats.url, "pod-2") as two:
        await service.kill()
        halted = time.monotonic()
        written, proof = await stack.run("halt", "desk", "--reason", "wrong refunds", "--wait", "--json")
        assert proof["contained"] is True
        assert {one["instance"]: one["state"] for one in proof["instances"]} == {"pod-1": "applied", "pod-2": "applied"}
        assert len(one.stopped_after(halted)) == one.runs
        assert len(two.stopped_after(halted)) == two.runs
        assert await stack.spoken("halted") == []
        await stack.start("kill-switch")

        async def reported() -> bool:
            assert [said["epoch"] for said in await stack.spoken("halted")] == [written["epoch"]]
            assert [said["epoch"] for said in await stack.spoken("contained")] == [written["epoch"]]
            return True

        await eventually(reported, within=15)
        figure("kill-switch dead: halt → contained, by the client's own proof", proof["seconds"], "s", 1)


# Each of three halts begins (a capital) and ends: a Drill, one with an eXpiry, and an Operator's.
ORDERS = [
    order
    for order in map("".join, itertools.permutations("DdXxOo"))
    if all(order.index(kind) < order.index(kind.lower()) for kind in "DXO")
]
STEP = timedelta(seconds=5)


class Desk:
    """An agent to which everything happens in one order. `dead`: the drill's process does not live to its end."""

    def __init__(self, board: Switchboard, order: str, dead: bool) -> None:
        cases = "".join("b" if kind.isupper() else "e" for kind in order)
        self.name = f"{order.lower()}-{cases}-{'dead' if dead else 'live'}"
        self.order, self.dead = order, dead
        self._board = board
        self._drill: Written | None = None

    async def step(self, number: int, times: list[datetime]) -> None:
        board, scope = self._board, Scope(self.name)
        match self.order[number]:
            case "D":
                ends = times[self.order.index("d")]
                self._drill = await board.halt(scope, reason="drill", by="drill", drill=True, expires_at=ends)
            case "d" if self._drill and not self.dead:
                await board.restore(scope, self._drill, by="drill", reason="the drill is over")
            case "X":
                await board.halt(scope, reason="a while", by="bob", expires_at=times[self.order.index("x")])
            case "O":
                await board.halt(scope, reason="for good", by="ann")
            case "o":
                await board.resume(scope, reason="mended", by="ann")

    def standing(self, done: str) -> set[str]:
        """Which of the halts must hold after the steps `done`."""
        found: set[str] = set()
        for kind in done:
            if kind == "o":
                found.clear()  # a person lifts all of it
            elif kind.islower():
                found.discard(kind.upper())
            elif kind != "D" or not found:  # a drill leaves an agent alone that is halted
                found.add(kind)
        return found


async def states(board: Switchboard) -> dict[str, str]:
    return {entry.key: record.state for entry in await board.entries() if (record := entry.record())}


async def test_a_drill_an_expiry_and_an_operator_overlap_in_every_order_and_kill_switch_dies_in_between(
    stack: Stack, figure: Callable[..., None]
) -> None:
    board = Switchboard(stack.client.jetstream())
    desks = [Desk(board, order, dead) for order in ORDERS for dead in (False, True)]
    assert len(desks) == 180
    for desk in desks:
        await arm(stack.client.jetstream(), desk.name)
    service = await stack.start("kill-switch")
    start = datetime.now(UTC) + timedelta(seconds=1)
    times = [start + number * STEP for number in range(6)]
    wrong: list[str] = []
    for number, begins in enumerate(times):
        await until(begins)
        await asyncio.gather(*(desk.step(number, times) for desk in desks[::2]))
        await service.kill()
        await asyncio.gather(*(desk.step(number, times) for desk in desks[1::2]))
        service = await stack.start("kill-switch")
        await until(begins + STEP * 0.8)
        found = await states(board)
        assert datetime.now(UTC) < begins + STEP, "this machine is too slow for the steps"
        for desk in desks:
            done = desk.order[: number + 1]
            if desk.standing(done) and found[f"agent.{desk.name}"] == "running":
                wrong.append(f"{desk.name} runs after {done}")

    async def all_run() -> bool:
        return {found for key, found in (await states(board)).items() if key != "fleet"} == {"running"}

    await eventually(all_run, within=15)
    what = f"{len(desks)} overlaps of a drill, an expiry and an operator: halts lifted by another"
    figure(what, len(wrong), "halts", 0)

    async def history_is_whole() -> bool:
        assert await history(stack) == await writes(board)
        return True

    await eventually(history_is_whole, within=15)


async def until(time: datetime) -> None:
    await asyncio.sleep(max(0.0, (time - datetime.now(UTC)).total_seconds()))


async def writes(board: Switchboard) -> dict[str, list[tuple[str, int]]]:
    """What the bucket holds: by key, what each write did and its epoch."""
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in await board.writes(0, limit=10_000):
        record = entry.record()
        if record is not None and record.by != "test" and entry.key != "fleet":
            event = "halted" if record.state == "halted" else "resumed"
            found.setdefault(entry.key, []).append((event, entry.revision))
    return found


async def history(stack: Stack) -> dict[str, list[tuple[str, int]]]:
    """The same, as kill-switch said it."""
    found: dict[str, list[tuple[str, int]]] = {}
    for subject, body in await stack.messages(subjects.GOVERNANCE, "midwatch.switch.>"):
        event = subject.rsplit(".", 1)[1]
        if event in ("halted", "resumed"):
            data = json.loads(body)["data"]
            found.setdefault(data["key"], []).append((event, data["epoch"]))
    return found

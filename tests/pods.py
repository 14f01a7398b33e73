"""Agents in processes of their own, which a test may stop, kill or cut off, and what they did by their own notes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nats.js import JetStreamContext

from helpers import eventually
from midwatch import testing
from midwatch.contracts import control, subjects
from midwatch.contracts.control import SwitchRecord, SwitchRule

PROGRAM = Path(__file__).parent / "chaos" / "pod_program.py"
LEASE = 2.0  # seconds


class Note(NamedTuple):
    """What a pod did. `at` is CLOCK_MONOTONIC, which all processes of a machine share."""

    at: float
    kind: str  # began, call, fallback, answered, left, rogue
    run_id: str
    detail: str  # the key that stopped it


@dataclass
class Pod:
    """One process of an agent."""

    instance: str
    runs: int
    log: Path
    child: asyncio.subprocess.Process

    def notes(self, *kinds: str) -> list[Note]:
        try:
            text = self.log.read_text()
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                at, kind, run_id, detail = line.rstrip("\n").split(" ", 3)
                found.append(Note(float(at), kind, run_id, detail))
        return [note for note in found if not kinds or note.kind in kinds]

    def calls_after(self, at: float) -> list[Note]:
        return [note for note in self.notes("call") if note.at > at]

    def stopped_after(self, at: float) -> list[Note]:
        """Runs that ended: at the fallback, or left to the caller."""
        return [note for note in self.notes("fallback", "left") if note.at > at]

    def last_call(self, since: float) -> float:
        """Seconds from `since` to the last call; 0 where none began after it."""
        return max((note.at - since for note in self.calls_after(since)), default=0.0)

    async def busy(self, since: float | None = None, within: float = 15) -> float:
        """Waits until each of its runs has called after `since` (else: from now on); when that was so."""
        start = time.monotonic() if since is None else since

        def all_call() -> bool:
            assert self.child.returncode is None, f"{self.instance} ended with {self.child.returncode}"
            return len({note.run_id for note in self.calls_after(start)}) >= self.runs

        await eventually(all_call, within=within)
        return time.monotonic()

    async def stopped(self, since: float, within: float = 15) -> float:
        """Waits until all of its runs have ended after `since`; when the last did."""
        await eventually(lambda: len(self.stopped_after(since)) >= self.runs, within=within)
        return max(note.at for note in self.stopped_after(since))

    def pause(self) -> None:
        self.child.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.child.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
            await self.child.wait()


@asynccontextmanager
async def pod(
    folder: Path, url: str, instance: str = "pod-1", *, agent: str = "desk", runs: int = 5, own: bool = True,
    more: Sequence[str] = (), idle: bool = False, home: str = "", environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Pod]:  # fmt: skip
    """An agent's process, its runs in flight, unless it is `idle`, being halted. `own`: its program has a fallback of
    its own. `more`: words that the program knows. `home`: the state folder, of `instance` alone unless it is named."""
    log = folder / f"{instance}.notes"
    words = [url, str(folder / (home or instance)), instance, agent, str(runs), str(log), "own" if own else "none"]
    with (folder / f"{instance}.log").open("ab") as said:
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *words, *more, stdout=said, stderr=said,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    found = Pod(instance, runs, log, child)
    try:
        if not idle:
            await found.busy()
        yield found
    finally:
        await found.kill()


async def arm(
    js: JetStreamContext, agent: str = "desk", *, lease: float = LEASE, switch: SwitchRule | None = None
) -> None:
    """Applies a card for the agent and lets it run."""
    rule = switch or SwitchRule(lease=lease)
    card = testing.card(agent, switch=rule, tools=testing.tools(look_up="read"))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))
    running = control.encode(SwitchRecord(state="running", by="test"))
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), running)

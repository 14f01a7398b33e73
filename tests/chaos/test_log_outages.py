"""The run log's database is away for a minute, in each of the ways in which one goes, while events arrive."""

import asyncio
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

import pytest

import postgres
import stack as whole
from run_log import assert_as_undisturbed, caught_up, dead, errors_of, feeding, lag, memory_of
from stack import Process, Stack

pytestmark = pytest.mark.chaos

MINUTE = 60.0  # seconds
RATE = 300  # events a second in each of the outages, of which five happen at once
GROWTH = 150.0  # MB that the logger may take more than before
LATE = 60.0  # seconds in which it must have caught up

Figure = Callable[[str, float, str, float], None]
Away = Callable[[Stack], AbstractAsyncContextManager[None]]


def paused(server: postgres.Server) -> Away:
    """Connections stay open and nothing answers."""

    @asynccontextmanager
    async def away(_: Stack) -> AsyncIterator[None]:
        server.pause()
        try:
            yield
        finally:
            server.wake()

    return away


def stopped(server: postgres.Server) -> Away:
    """`pg_ctl stop`, then a start."""

    @asynccontextmanager
    async def away(_: Stack) -> AsyncIterator[None]:
        await asyncio.to_thread(server.stop)
        yield
        await asyncio.to_thread(server.start)

    return away


def read_only(server: postgres.Server) -> Away:
    """Every transaction from now on, of connections that are open too, may only read."""

    @asynccontextmanager
    async def away(_: Stack) -> AsyncIterator[None]:
        server.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        yield
        server.execute(
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )

    return away


@asynccontextmanager
async def locked(stack: Stack) -> AsyncIterator[None]:
    """Another process, or a person with a shell, holds SQLite's file."""
    other = sqlite3.connect(stack.home / "data" / "logger.db", isolation_level=None, timeout=30)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.close()


@asynccontextmanager
async def immutable(stack: Stack) -> AsyncIterator[None]:
    """No write reaches SQLite's file and its WAL, through descriptors that are open neither, and no file can be made
    beside them. (A read-only mount is refused while a file on it is open for writing.)"""
    folder = stack.home / "data"
    freeze(folder, "+i")
    try:
        yield
    finally:
        freeze(folder, "-i")


def freeze(folder: Path, how: str) -> None:
    # Not the index of the WAL: it is mapped into memory, where a refused write is a SIGBUS and no error.
    files = [str(path) for path in folder.glob("logger.db*") if not path.name.endswith("-shm")]
    subprocess.run(["chattr", how, str(folder), *files], check=True, capture_output=True)


def can_freeze(folder: Path) -> bool:
    """It takes root, and a file system that knows the flag."""
    probe = folder / "probe"
    probe.touch()
    if shutil.which("chattr") is None:
        return False
    done = [subprocess.run(["chattr", how, str(probe)], capture_output=True, check=False) for how in ("+i", "-i")]
    return not any(one.returncode for one in done)


class Outage:
    """One of them, in a stack of its own."""

    def __init__(self, name: str, away: Away, said: str, server: postgres.Server | None = None) -> None:
        self.name, self._away, self._said = name, away, said
        self._url = f"{server.url}/log" if server else None
        if server:
            server.execute("CREATE DATABASE log")
        self.events = self.behind = 0
        self.growth = self.seconds = 0.0

    async def happen(self, folder: Path) -> None:
        folder.mkdir()
        async with whole.running(folder, self._url) as stack:
            logger = await stack.start("logger")
            async with feeding(stack, RATE) as feed:
                while feed.count < 2 * RATE or await lag(stack) > RATE:
                    await asyncio.sleep(0.05)
                async with self._away(stack):
                    await self._last_a_minute(stack, logger)
                self.behind = await lag(stack)
            self.events = feed.count
            self.seconds = await caught_up(stack)
            await logger.ready()
            assert await dead(stack) == 0
            await assert_as_undisturbed(stack, feed.count)

    async def _last_a_minute(self, stack: Stack, logger: Process) -> None:
        ends, before = time.monotonic() + MINUTE, memory_of(logger)
        first = await errors_of(logger)
        assert self._said in first, f"{self.name}: {first}"
        assert len(first.splitlines()) == 1
        # Doctor asks what /readyz says, and names the mend.
        code, lines, _ = await stack.attempt("doctor", "--json", MIDWATCH_HTTP=f"http://127.0.0.1:{logger.port}/logger")
        [service] = [line for line in lines if line["check"] == "service"]
        assert (code, service["ok"]) == (1, False)
        assert self._said in service["detail"]
        assert "\n" not in service["detail"]
        while time.monotonic() < ends:
            self.growth = max(self.growth, memory_of(logger) - before)
            await asyncio.sleep(0.25)
        assert self._said in await errors_of(logger, within=1), f"{self.name}: it said so no longer"


def on_postgres(servers: ExitStack) -> list[Outage]:
    """Those of PostgreSQL, each with a server of its own."""
    one, two, three = (servers.enter_context(postgres.server()) for _ in range(3))
    return [
        Outage("PostgreSQL paused", paused(one), "no answer within", one),
        Outage("PostgreSQL stopped", stopped(two), "does not answer", two),
        Outage("PostgreSQL read-only", read_only(three), "read-only transaction", three),
    ]


@pytest.mark.timeout(400)
async def test_a_database_that_was_away_for_a_minute_costs_no_event(
    tmp_path: Path, say: Callable[[str], None], figure: Figure
) -> None:
    outages = [Outage("SQLite locked", locked, "database is locked")]
    if can_freeze(tmp_path):
        outages.append(Outage("SQLite's files immutable", immutable, "logger.db"))
    else:
        say("left out: SQLite's files immutable, for which it takes root and `chattr +i`")
    with ExitStack() as servers:
        try:
            outages += on_postgres(servers)
        except postgres.NotInstalled as error:
            say(f"left out: PostgreSQL away ({error})")
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(outages):
                group.create_task(one.happen(tmp_path / f"{number}"))
    for one in outages:
        what = f"{one.name} for a minute, {one.events:,} events, {one.behind:,} of them behind"
        figure(f"{what}: caught up after", one.seconds, "s", LATE)
        figure(f"{one.name} for a minute: the logger's memory grew by", one.growth, "MB", GROWTH)

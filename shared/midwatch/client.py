"""`midwatch.connect()`: where a program begins."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from . import agent as agents
from .agent import Agent, Fallback
from .engine import Engine, EngineThread
from .errors import NotConnected


class Midwatch:
    """The connection of one process. Events are kept on disk until the server has them, whether it is there or not."""

    def __init__(self, engine: agents.Engine) -> None:
        self._engine = engine

    @property
    def instance(self) -> str:
        """Name of this process in presence and in the source of its events."""
        return self._engine.instance

    def agent(self, name: str, *, version: str, fallback: Fallback | None = None, obey: bool = True) -> Agent:
        """Declares an agent: from now on this process follows its switch and reports its presence.

        `fallback` is called with a Handoff in place of a run that was halted. `obey=False` only records, as a replay
        does. Raises BadAgentName.
        """
        if self._engine.closed:
            raise NotConnected
        return Agent(self._engine, name, version, fallback, obey)


class Connection:
    """What `connect` gives: `async with midwatch.connect() as mw:`."""

    def __init__(self, url: str | None, home: Path | None, instance: str | None) -> None:
        self._options = (url, home, instance)
        self._thread: EngineThread | None = None

    async def __aenter__(self) -> Midwatch:
        self._thread = open_engine(*self._options)
        return Midwatch(self._thread.engine)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            # Shielded: where this task is cancelled the engine still closes, in its own thread.
            await asyncio.shield(asyncio.wrap_future(self._thread.stop()))

    def agent(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotConnected: the connection must be entered first."""
        raise NotConnected


def connect(url: str | None = None, *, home: Path | str | None = None, instance: str | None = None) -> Connection:
    """Connects to NATS at `url` (else `NATS_URL`, else the local `midwatch up`): `async with connect() as mw:`.

    Does not wait for the server: what is recorded waits on disk in `home` (else `MIDWATCH_HOME`). `instance` names
    this process; by default it gets a name of its own.
    """
    return Connection(url, Path(home) if home is not None else None, instance)


def open_engine(url: str | None, home: Path | None, instance: str | None) -> EngineThread:
    """An engine that runs in a thread of its own."""
    thread = EngineThread(Engine(url, home=home, instance=instance))
    thread.start()
    return thread

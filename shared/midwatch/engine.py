"""The engine of the SDK: one connection, one spool, the switches of this process's agents. Runs in one loop.

`Engine` is used inside a loop; `EngineThread` gives it a thread and a loop of its own, so that a host that blocks its
loop stays present and obedient.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from . import cases, locate, offers
from .allowance import Allowances
from .contracts import subjects
from .contracts.budget import Reserve, Reserved
from .contracts.runs import EVENT_LIMIT
from .flush import Flusher
from .link import Link, end
from .spool import Spool
from .switch import LocalSwitch

log = logging.getLogger("midwatch")

SYNC_EVERY = 0.25  # seconds for which an event may be on no disk but in the system's memory
CLOSE_WITHIN = 5.0  # seconds for signing off and for what is still to be flushed
ROOM = 4096  # bytes of a message that its headers may take

_NAME = re.compile(r"[A-Za-z0-9_-]+$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def instance_name(name: str | None = None) -> str:
    """`name` as one token of a subject, or a name that no other process has."""
    made = name or f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}"
    return _UNSAFE.sub("-", made).strip("-")[:100] or secrets.token_hex(6)


def inbox_prefix(url: str) -> str:
    """Where answers are heard: below the name of the user in `url`, so that the server need let an agent hear no other
    inbox than its own."""
    address = urlsplit(url.split(",")[0])
    user = unquote(address.username or "")
    # A name without a password is a token, and a secret.
    return f"_INBOX.{user}" if address.password and _NAME.match(user) else "_INBOX"


def spool_folder(home: Path | None = None) -> Path:
    """Where events wait: `MIDWATCH_SPOOL`, or `spool` in the state folder."""
    given = os.environ.get("MIDWATCH_SPOOL")
    return Path(given) if given and home is None else (home or locate.home()) / "spool"


class Engine:
    """Publishes what the spool holds, follows the switch, reports presence. `error` says what is wrong now, if
    anything: the engine itself goes on for ever."""

    def __init__(self, url: str | None = None, *, home: Path | None = None, instance: str | None = None) -> None:
        self.url = url or locate.nats_url()
        self.instance = instance_name(instance)
        self.folder = spool_folder(home)
        self.spool = Spool.open(self.folder, self.instance)
        self.event_limit = EVENT_LIMIT - ROOM
        self.error: str | None = None
        self.closed = False
        self._nc: Client | None = None
        self._links: dict[str, Link] = {}
        self._switches: dict[str, LocalSwitch] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flusher: Flusher | None = None
        self._claims = cases.Claims()
        self._allowances = Allowances(self._spawn)
        self._takers: dict[str, offers.Heard] = {}
        self._tried = asyncio.Event()  # whether the server is there is known by now

    # For runs and agents, from any thread.

    def follow(self, agent: str, version: str) -> LocalSwitch:
        """The switch of `agent` in this process, followed from now on."""
        with self._lock:
            if agent not in self._switches:
                self._switches[agent] = LocalSwitch(agent, seen=self.folder / f"seen-{agent}.json")
            switch = self._switches[agent]
        self.call_soon(lambda: self._link(switch, version))
        return switch

    def append(self, subject: str, event_id: str, traceparent: bytes, body: bytes) -> None:
        """Takes one event for publishing; it is on disk when this returns."""
        self.spool.append(subject, event_id, traceparent, body)

    def claim(self, key: str, body: bytes, within: float) -> "Future[bool | None]":
        """Creates a key of the cases bucket. Whether it is ours; None where the server does not say so in time."""
        answer: Future[bool | None] = Future()
        answer.set_running_or_notify_cancel()  # nobody who stops waiting cancels it
        self.call_soon(lambda: self._spawn(self._claim(answer, key, body, within)))
        return answer

    def reserve(self, agent: str, request: Reserve, go_on: bool) -> "Future[Reserved | None]":
        """Asks cost-watchdog to set money aside; None where it does not answer in time."""
        answer: Future[Reserved | None] = Future()
        answer.set_running_or_notify_cancel()  # nobody who stops waiting cancels it
        self.call_soon(lambda: self._spawn(self._reserve(answer, agent, request, go_on)))
        return answer

    def commit(self, agent: str, id: str, cost: str) -> None:
        """Tells cost-watchdog what a call cost for which money was set aside."""
        self.call_soon(lambda: self._spawn(self._allowances.commit(agent, id, cost)))

    def release(self, agent: str, ticket: str | None, run_id: str) -> None:
        """A run for which more may be held than it used is over."""
        self.call_soon(lambda: self._spawn(self._allowances.release(agent, ticket, run_id)))

    def take_cases(self, agent: str, heard: offers.Heard) -> None:
        """From now on `heard` is called, in the engine's thread, with each case that `agent` is offered."""

        def subscribe() -> None:
            new = agent not in self._takers
            self._takers[agent] = heard
            if new and self._nc is not None:
                self._spawn(self._hear_offers(self._nc, agent))

        self.call_soon(subscribe)

    def call_soon(self, work: Callable[[], object]) -> None:
        """Runs `work` in the engine's loop, if that still turns."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(work)

    # In the engine's loop.

    async def start(self) -> None:
        """Begins; does not wait for the server."""
        self._loop = asyncio.get_running_loop()
        for work in (self._stay_connected(), self._look_after_spool(), self._allowances.renew()):
            self._spawn(work)

    async def close(self, within: float = CLOSE_WITHIN) -> None:
        """Records how runs that are left end, signs off, flushes within the time given. What remains stays on disk for
        the next process."""
        self.closed = True
        for switch in self._switches.values():
            for run in switch.live:
                run.abandon()
        try:
            async with asyncio.timeout(within):
                await self._allowances.close()
                await asyncio.gather(*(link.close(within=1.0) for link in self._links.values()), return_exceptions=True)
                await self._drain(within)
        except TimeoutError:
            log.info("midwatch: closing took longer than %g s", within)
        await end(self._tasks, again=1.0)
        if self.spool.pending:
            log.warning("midwatch: %d events wait in %s for the next process", self.spool.pending, self.folder)
        self.spool.close()

    @property
    def spooled(self) -> tuple[int, int]:
        """Events that wait on disk, and events lost."""
        return self.spool.pending, self.spool.lost

    def _link(self, switch: LocalSwitch, version: str) -> None:
        link = self._links.get(switch.agent)
        if link is not None:
            link.version = version
            return
        if self.closed:
            return
        link = self._links[switch.agent] = Link(self, switch.agent, version, switch)
        link.start()
        if self._nc is not None:
            self._spawn(link.subscribe(self._nc))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is not None:
            task = self._loop.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _claim(self, answer: "Future[bool | None]", key: str, body: bytes, within: float) -> None:
        ours: bool | None = None
        try:
            ours = await self._claims.create(key, body, within)
        finally:
            answer.set_result(ours)

    async def _reserve(self, answer: "Future[Reserved | None]", agent: str, request: Reserve, go_on: bool) -> None:
        said: Reserved | None = None
        try:
            said = await self._allowances.reserve(agent, request, go_on=go_on)
        finally:
            answer.set_result(said)

    async def _hear_offers(self, client: Client, agent: str) -> None:
        with contextlib.suppress(nats.errors.Error):  # the connection is gone: the next one subscribes
            await client.subscribe(subjects.case(agent, "offered"), queue=offers.QUEUE, cb=self._offered)

    async def _offered(self, msg: Msg) -> None:
        offer = None if self.closed else offers.read(msg)
        if offer is not None:
            with contextlib.suppress(RuntimeError):  # the host's loop is closed: the router gives it to people
                self._takers[offer.taker](offer)

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._one_connection()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self._warn(error)
            except Exception:
                log.exception("midwatch: the connection to %s failed, trying again", self._where)
            await asyncio.sleep(1.0)

    async def _look_after_spool(self) -> None:
        """Says once what keeps events back, and syncs them to disk while there is no flusher that would."""
        said: str | None = None
        while True:
            wrong = self.spool.error or (self._flusher.error if self._flusher else None)
            if wrong and wrong != said:
                log.warning("midwatch: %d events wait: %s", self.spool.pending, wrong)
            said = wrong
            if self._flusher is None and self.spool.pending:
                await asyncio.to_thread(self.spool.sync)
            await asyncio.sleep(SYNC_EVERY)

    async def _one_connection(self) -> None:
        """Lives as long as one client does: through any number of reconnections, until the server throws it out."""
        over = asyncio.Event()
        client = Client()

        async def back() -> None:
            self._connected(client)
            for link in self._links.values():
                link.wake()

        async def ended() -> None:
            over.set()

        async def wrong(error: Exception) -> None:
            self._warn(error)

        flushing: list[asyncio.Task[None]] = []
        try:
            await client.connect(
                self.url.split(","), name=f"midwatch {self.instance}", max_reconnect_attempts=-1, ping_interval=2,
                reconnect_time_wait=0.5,  # type: ignore[arg-type]
                connect_timeout=2, inbox_prefix=inbox_prefix(self.url), reconnected_cb=back, closed_cb=ended,
                error_cb=wrong,
            )  # fmt: skip
            self._connected(client)
            await self._claims.subscribe(client)
            await self._allowances.subscribe(client)
            self._nc = client  # from now on a new link, and a new taker of cases, subscribes by itself
            for agent in list(self._takers):
                await self._hear_offers(client, agent)
            for link in list(self._links.values()):
                await link.subscribe(client)
            self._flusher = Flusher(client, self.spool)
            flushing.append(asyncio.create_task(self._flusher.run()))
            self._tried.set()
            await over.wait()
        finally:
            self._nc = self._flusher = None
            await end(flushing, again=0.2)
            with contextlib.suppress(Exception):  # whatever state it is in, it is given up
                await client.close()

    def _connected(self, client: Client) -> None:
        self.error = None
        self.event_limit = min(EVENT_LIMIT, client.max_payload) - ROOM

    async def _drain(self, within: float) -> None:
        # Where the server refused us there is nothing to wait for; a connection in the making is worth it.
        if self.spool.pending:
            await self._tried.wait()
        if self._flusher is not None and self._nc is not None and self._nc.is_connected:
            await self._flusher.drain(within)

    @property
    def _where(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.url)  # an address may hold a password

    def _warn(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._tried.set()
        if text != self.error:
            self.error = text
            log.warning("midwatch: NATS at %s: %s", self._where, text)


class EngineThread:
    """An engine in a thread and loop of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.over: Future[None] = Future()
        self._started: Future[None] = Future()
        self._stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Starts the thread; returns when the engine's loop turns."""
        threading.Thread(target=self._main, name="midwatch", daemon=True).start()
        self._started.result()
        atexit.register(self.close)

    def stop(self) -> "Future[None]":
        """Asks the engine to close; the answer is done when it has."""
        self._stop()
        atexit.unregister(self.close)
        return self.over

    def close(self) -> None:
        """Closes the engine and waits for it."""
        with contextlib.suppress(TimeoutError):
            self.stop().result(CLOSE_WITHIN + 2)

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            log.exception("midwatch: the engine stopped")
            if not self._started.done():
                self._started.set_exception(error)
        finally:
            self.over.set_result(None)

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

        self._stop = ask
        await self.engine.start()
        self._started.set_result(None)
        await stop.wait()
        await self.engine.close()

"""A service's life: wait for what it needs, wire it, run it, answer probes, end it in order."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog
from faststream import FastStream
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.errors import MidwatchError, Misconfigured, Temporary

from . import telemetry, topology
from .broker import STOP_WITHIN, connection, make_broker, round_trip
from .card_book import CardBook
from .database import Database, migrate
from .delivery import Received, RunReader
from .loop import run_until_signal as run_until_signal  # the usual way to call `run_services`
from .outbox import Outbox
from .probes import PROBE_WITHIN, Answer, Probes, Request, Route, problem
from .settings import Settings
from .standin import Make, Standin

FIRST_DELAY = 0.5  # seconds before a service that could not start, or died, is started again; doubled each time
LONGEST_DELAY = 30.0  # seconds
LIVED_LONG = 60.0  # seconds after which a death counts as the first one again
TICK = 0.25  # seconds between two looks at the connection

log = structlog.get_logger("midwatch.service")
_migrating = threading.Lock()  # Alembic keeps what it works on in module globals

E = TypeVar("E")
Work = Callable[[], Awaitable[None]]
_MAY_PASS = (Temporary, NatsError, TimeoutError)


class ServiceEnded(MidwatchError):
    """The service {service} has died: its task `{task}` ended. It is to be started again; its log says more."""


@dataclass(frozen=True)
class Service:
    """A service as `app.py` exports it. `build` wires it; `tables` says whether it has migrations; `standin` makes what
    answers in its place while it waits for NATS."""

    name: str
    build: Callable[["Context"], None]
    tables: bool = True
    standin: Make | None = None


class Context:
    """What `build` wires a service with. Everything is connected; nothing runs yet."""

    def __init__(self, service: Service, settings: Settings, nc: Client, broker: NatsBroker) -> None:
        self.name = service.name
        self.settings = settings
        self.nc = nc
        self.js: JetStreamContext = nc.jetstream()
        self.broker = broker
        self.cards = CardBook(self.js, nc)
        self.now: Callable[[], datetime] = utc_now
        self.readers: list[tuple[str, RunReader[Any]]] = []
        self.route: Route | None = None
        self._database = Database(settings.database_for(service.name), name=service.name) if service.tables else None
        self._first: list[Work] = []
        self._lasting: list[tuple[str, Work]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._app = FastStream(
            broker, logger=None, on_startup=[self._begin], after_startup=[self._run], on_shutdown=[self._end]
        )

    @property
    def database(self) -> Database:
        """The service's database. Raises MidwatchError for a service without tables."""
        if self._database is None:
            raise MidwatchError(f"{self.name} has no database: say tables=True in its Service")
        return self._database

    def read_runs(
        self,
        consumer: str,
        handle: Callable[[list[Received]], Awaitable[None]],
        *,
        outbox: Outbox | None = None,
        batch: int = 500,
        stream: str = subjects.RUNS,
    ) -> RunReader:
        """Reads a durable consumer of run events for the service's life; `handle` gets batches in order."""
        return self.read(stream, consumer, handle, decode=codec.decode_run, outbox=outbox, batch=batch)

    def read(
        self,
        stream: str,
        consumer: str,
        handle: Callable[[list[Received[E]]], Awaitable[None]],
        *,
        decode: Callable[[str, bytes], E],
        outbox: Outbox | None = None,
        batch: int = 500,
    ) -> RunReader[E]:
        """`read_runs` for any stream: `decode` makes the event, and raises Refused for what breaks the contract."""
        reader = RunReader(
            self.nc, self.js, stream=stream, consumer=consumer, service=self.name, handle=handle, decode=decode,
            outbox=outbox, batch=batch,
        )  # fmt: skip
        self.readers.append((consumer, reader))
        self.background(reader.run, name=f"reader {consumer}")
        return reader

    def answer(self, route: Route) -> None:
        """Has `route` answer what is posted over HTTP below the service's name."""
        self.route = route

    def every(self, seconds: float, work: Work) -> None:
        """Does `work` again and again, `seconds` apart. An error is logged and counted, and the work goes on."""
        name = _name(work)

        async def again() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await work()
                except _MAY_PASS as error:
                    telemetry.PERIODIC_ERRORS.labels(self.name, name).inc()
                    log.warning("periodic_work_failed", service=self.name, work=name, error=str(error) or repr(error))
                except Exception:
                    telemetry.PERIODIC_ERRORS.labels(self.name, name).inc()
                    log.exception("periodic_work_failed", service=self.name, work=name)

        self.background(again, name=f"every {seconds:g} s {name}")

    def on_start(self, work: Work) -> None:
        """Awaits `work`, in order, before anything is read: to load state, to drain the outbox."""
        self._first.append(work)

    def background(self, work: Work, *, name: str | None = None) -> None:
        """Runs `work` as a task for the service's life. If it raises or ends, the service has died."""
        self._lasting.append((name or _name(work), work))

    async def start(self) -> None:
        """Runs what was wired, in this order: `on_start`, FastStream's subscribers, readers and other tasks."""
        await self._app.start()

    async def died(self) -> BaseException:
        """Waits until a task that should last for ever does not, and returns why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = done.pop()
        return ended.exception() or ServiceEnded(service=self.name, task=ended.get_name())

    async def close(self) -> None:
        """Ends tasks, lets handlers under way finish, closes cards, connection and database, whatever was begun."""
        try:
            async with asyncio.timeout(2 * STOP_WITHIN):
                await self._app.stop()
        except (ConnectionClosedError, ConnectionReconnectingError):
            pass  # there is no server to say goodbye to; what was not acknowledged comes again
        except Exception as error:
            log.warning("unclean_end", service=self.name, error=repr(error))
        finally:
            await self.nc.close()
            if self._database:
                await asyncio.to_thread(self._database.close)

    async def ping(self) -> dict[str, str]:
        """What is wrong, by part; nothing when all is well."""
        wrong = {}
        if why := await problem(round_trip(self.nc, PROBE_WITHIN), connected=self.nc.is_connected):
            wrong["nats"] = why
        if self._database and (why := await problem(self._database.ping())):
            wrong["database"] = why
        wrong.update({consumer: why for consumer, reader in self.readers if (why := reader.trouble())})
        return wrong

    async def _begin(self) -> None:
        await self.cards.start()
        for work in self._first:
            await work()

    async def _run(self) -> None:
        self.background(self._connection, name="connection")
        for name, work in self._lasting:
            self._tasks.append(asyncio.create_task(_task(work), name=name))

    async def _connection(self) -> None:
        # The client reconnects for ever; what closes it is a server that refuses the credentials.
        connected, reconnects = True, self.nc.stats["reconnects"]
        while not self.nc.is_closed:
            await asyncio.sleep(TICK)
            if self.nc.is_connected != connected:
                connected = self.nc.is_connected
                log.warning("nats_is_back" if connected else "nats_is_lost", service=self.name)
            if connected and self.nc.stats["reconnects"] != reconnects:
                # A server that was restarted has lost what it kept in memory: the registry of instances, on which
                # every agent's lease depends.
                with contextlib.suppress(*_MAY_PASS):
                    await topology.restore(self.js, self.settings)
                    reconnects = self.nc.stats["reconnects"]

    async def _end(self) -> None:
        # nats-py swallows a cancellation that comes while it subscribes: ask again until it is heard.
        pending = set(self._tasks)
        for _ in range(STOP_WITHIN):
            for task in pending:
                task.cancel()
            if pending:
                _, pending = await asyncio.wait(pending, timeout=1)
        for task in pending:
            log.error("task_does_not_end", service=self.name, task=task.get_name())
        await self.cards.close()


async def _task(work: Work) -> None:
    await work()


def _name(work: Work) -> str:
    return str(getattr(work, "__qualname__", repr(work)))


class Runner:
    """Runs one service until cancelled. With `restart`, one that died is started again after a growing delay."""

    def __init__(self, service: Service, settings: Settings, *, restart: bool) -> None:
        self.name = service.name
        self.running = asyncio.Event()  # set when it runs for the first time
        self._service, self._settings, self._restart = service, settings, restart
        self._standin = Standin(service.standin, settings)
        self._context: Context | None = None
        self._waits_for: str | None = "its start"
        self._died_of: str | None = None
        self._ending = False

    def end(self) -> None:
        """To be called with the cancellation of `run`, which nats-py may swallow while the service starts."""
        self._ending = True

    def alive(self) -> dict[str, Any]:
        """`ok` unless the service has died and was not started again yet."""
        return {"service": self.name, "ok": self._died_of is None, "error": self._died_of}

    async def ready(self) -> dict[str, Any]:
        """`ok` where the service runs, and NATS and its database answered just now."""
        wrong = {}
        if self._died_of:
            wrong["service"] = f"died: {self._died_of}"
        elif self._waits_for or self._context is None:
            wrong["service"] = f"waits for {self._waits_for}"
        else:
            wrong = await self._context.ping()
        telemetry.READY.labels(self.name).set(not wrong)
        return {"service": self.name, "ok": not wrong, "errors": wrong}

    async def answer(self, request: Request) -> Answer | None:
        if self._context is None:
            return 503, {"ok": False, "error": f"{self.name} does not run yet"}
        return await self._context.route(request) if self._context.route else None

    async def run(self) -> None:
        """Raises what the service died of, unless it is to be started again."""
        delay = FIRST_DELAY
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._live()
            except Exception as error:
                if not self._restart or (isinstance(error, Misconfigured) and not self.running.is_set()):
                    raise
                self._died_of = str(error) or repr(error)
                log.exception("service_died", service=self.name, again_in_seconds=delay)
            telemetry.RESTARTS.labels(self.name).inc()
            delay = FIRST_DELAY if clock() - began > LIVED_LONG else delay
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _live(self) -> None:
        try:
            self._context = await self._start()
        finally:
            await self._standin.end()
        try:
            if self._ending:
                raise asyncio.CancelledError
            self._waits_for = self._died_of = None
            # Python's cyclic collector would walk all that was imported again and again, which stops the loop for a
            # tenth of a second each time.
            gc.collect()
            gc.freeze()
            self.running.set()
            log.info("service_runs", service=self.name)
            raise await self._context.died()
        finally:
            context, self._context = self._context, None
            await context.close()

    async def _start(self) -> Context:
        """Tries until everything that the service needs is there."""
        delay = FIRST_DELAY
        while True:
            try:
                return await self._try_start()
            except _MAY_PASS as error:
                self._waits_for = str(error) or type(error).__name__
                if self._ending:
                    raise asyncio.CancelledError from None
                log.warning("service_waits", service=self.name, why=self._waits_for, again_in_seconds=delay)
                await self._standin.begin()
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _try_start(self) -> Context:
        async with connection(self._settings.url):
            await self._standin.end()  # the broker's own connection would wait for a server without a word
        if self._service.tables:
            await asyncio.to_thread(_migrate, self._settings.database_for(self.name), self.name)
        broker = make_broker(self._settings.url, self.name)
        nc = await broker.connect()
        try:
            context = Context(self._service, self._settings, nc, broker)
        except BaseException:
            await nc.close()
            raise
        try:
            await topology.restore(context.js, self._settings)
            if absent := await topology.missing(context.js):
                raise Temporary(f"{', '.join(absent)} on NATS: run `midwatch topology apply`")
            self._service.build(context)
            await context.start()
        except BaseException:
            await context.close()
            raise
        return context


def _migrate(url: str, service: str) -> None:
    with _migrating:
        migrate(url, service)


Told = Callable[[Mapping[str, str]], None]


async def run_services(
    services: Sequence[Service],
    settings: Settings,
    *,
    started: Told | None = None,
    listening: Told | None = None,
    restart: bool = True,
) -> None:
    """Runs the services in this loop until cancelled; Ctrl-C and signals are the caller's.

    `listening` is told each service's probe address as soon as it answers, `started` the same once every service has
    run. A service that dies is started again; without `restart` its error is raised here. Raises HttpPortTaken.
    """
    runners = [Runner(service, settings, restart=restart) for service in services]
    telemetry.set_up_traces(settings)
    routes: dict[str, Route] = {runner.name: runner.answer for runner in runners}
    probes = Probes(runners, host=settings.http_host, port=settings.http_port, routes=routes)
    await probes.start()
    tasks = [asyncio.create_task(runner.run(), name=runner.name) for runner in runners]
    try:
        if listening:
            listening(probes.urls)
        if started:
            tasks.append(asyncio.create_task(_tell(runners, started, probes.urls)))
        pending: set[asyncio.Task[None]] = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for runner in runners:
            runner.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await probes.close()
        await asyncio.to_thread(telemetry.end_traces)


async def _tell(runners: Sequence[Runner], started: Told, urls: Mapping[str, str]) -> None:
    for runner in runners:
        await runner.running.wait()
    started(urls)

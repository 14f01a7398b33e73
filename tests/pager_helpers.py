"""What the tests of the pager share: a receiver that answers as told, the service, and alerts by hand."""

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from helpers import all_read, eventually
from midwatch.contracts import codec, governance, subjects
from midwatch.runtime.database import Database
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.pager import app, deliver
from midwatch_services.pager.handlers import Pager

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEY = b"0123456789abcdef0123456789abcdef"
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process is gone at this point."""


@dataclass
class Call:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> str:
        return str(self.said["type"]).removeprefix("alert.")

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent. `reply` gives a status for a call, or None to hang until the end."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    reply: Callable[[Call], int | None] = lambda call: 200
    closing: threading.Event = field(default_factory=threading.Event)

    def at(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    def whats(self, path: str = "/ann") -> list[str]:
        return [call.what for call in self.at(path)]


@contextmanager
def listening(receiver: Receiver | None = None) -> Iterator[Receiver]:
    """The receiver as a real server on a free port."""
    found = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:
                return  # whoever sent it died as it did
            call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            found.calls.append(call)
            status = found.reply(call)
            if status is None:
                found.closing.wait(20)
                return
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Tests read the calls themselves."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Whoever waits no longer has hung up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            found.closing.set()
            server.shutdown()
            thread.join()


class Clock:
    """The time that the pager goes by: the real one until it is put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, **length: float) -> None:
        self.ahead += timedelta(**length)


FILE = """\
channels:
  ann: {webhook: "%(url)s/ann", secret: "${PAGER_SECRET}"}
  bob: {webhook: "%(url)s/bob", secret: "${PAGER_SECRET}"}
  lead: {webhook: "%(url)s/lead", secret: "${PAGER_SECRET}"}
contacts: {ann: ann, bob: bob, lead: lead}
routes:
  on-call:
    steps:
      - {tell: ann, within: 10m}
      - {tell: bob, within: 15m}
  leads: {severity: ticket, steps: [{tell: lead, within: 24h}]}
default: on-call
"""


ROUTES = "routes: {on-call: {steps: [{tell: all, within: 1h}]}}\ndefault: on-call\n"


def channels(people: Receiver, *names: str) -> str:
    """A file that tells all the channels at once."""
    lines = [f'  {name}: {{webhook: "{people.url}/{name}", secret: "${{PAGER_SECRET}}"}}' for name in names]
    return "channels:\n" + "\n".join(lines) + f"\ncontacts: {{all: [{', '.join(names)}]}}\n{ROUTES}"


def write_file(settings: Settings, text: str) -> Path:
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.pager_yaml
    path.write_text(text)
    return path


@asynccontextmanager
async def pager(settings: Settings, clock: Callable[[], datetime] | None = None) -> AsyncIterator["asyncio.Task[None]"]:
    """The service, running. A crash of it is raised to whoever awaits the task."""

    def build(context: Context) -> None:
        if clock is not None:
            context.now = clock
        app.build(context)

    running = asyncio.Event()
    service = Service(subjects.PAGER, build)
    task = asyncio.create_task(run_services([service], settings, started=lambda _: running.set(), restart=False))
    started = asyncio.create_task(running.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash):
            await task


_counter = itertools.count(1)


def alert(event: str, alert_id: str = "a-1", *, at: datetime | None = None, id: str = "", **fields: Any) -> Any:
    """An alert event as a service publishes it; `raised` is a page of budget_run unless `fields` say otherwise."""
    if event == "raised":
        fields = {
            "rule": "budget_run", "severity": "page", "title": f"Run of {alert_id} has spent $1.20 of its $1.00 budget",
            "agent": "desk", "run_id": f"run-{alert_id}", "dedupe_key": f"budget_run/{alert_id}",
            "action_taken": "halted_run", "evidence": f"midwatch show run-{alert_id}", **fields,
        }  # fmt: skip
    elif event == "resolved":
        fields = {"reason": "the run has finished", **fields}
    else:
        fields = {"by": "ann", **fields}
    data = governance.GOVERNANCE_EVENTS["alert", event](alert_id=alert_id, **fields)
    return codec.envelope(
        "alert", event, data, source="/services/cost-watchdog", id=id or f"{alert_id}-{event}-{next(_counter)}",
        time=at or datetime.now(UTC),
    )  # fmt: skip


async def say(js: JetStreamContext, event: str, alert_id: str = "a-1", *, agent: str = "desk", **fields: Any) -> None:
    """Publishes it, acknowledged."""
    if event == "raised":
        fields["agent"] = agent
    made = alert(event, alert_id, **fields)
    await js.publish(subjects.alert(agent, event), codec.encode(made), headers={subjects.MSG_ID: made.id})


async def all_heard(js: JetStreamContext) -> bool:
    """Whether the pager has acknowledged every alert event."""
    return await all_read(js, subjects.GOVERNANCE, subjects.PAGER)


async def alerts_said(js: JetStreamContext, rule: str | None = None) -> list[tuple[str, Any]]:
    """Event and data of all alert events of a rule, and of the ends of its alerts, in order."""
    info = await js.stream_info(subjects.GOVERNANCE)
    found, ids = [], set()
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        event = (message.subject or "").rsplit(".", 1)[1]
        data = codec.decode(message.subject or "", message.data or b"").data
        if event == "raised" and (rule is None or data.rule == rule):
            ids.add(data.alert_id)
        if data.alert_id in ids:
            found.append((event, data))
    return found


def rows(settings: Settings, query: str) -> list[Mapping[str, Any]]:
    """What the pager's database answers."""
    database = Database(settings.database_for(subjects.PAGER), must_exist=True)
    try:
        return [dict(row._mapping) for row in database.read_now(lambda conn: conn.exec_driver_sql(query).fetchall())]
    finally:
        database.close()


async def told(receiver: Receiver, path: str, *whats: str, within: float = 20.0) -> list[Call]:
    """The calls at `path`, once they are exactly these."""

    def look() -> list[Call]:
        assert receiver.whats(path) == list(whats)
        return receiver.at(path)

    return list(await eventually(look, within)) if whats else look()


class Ticks:
    """Counts the looks of the pager at what time has brought about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        tick = Pager.tick

        async def counted(one: Pager) -> None:
            await tick(one)
            self._count += 1

        monkeypatch.setattr(Pager, "tick", counted)
        monkeypatch.setattr(app, "_TICK", 0.02)
        monkeypatch.setattr(app, "_FILE", 0.05)
        monkeypatch.setattr(deliver, "TICK", 0.02)

    async def settled_once(self, js: JetStreamContext) -> bool:
        """Every alert is heard, as far as the server says so."""
        try:
            return await all_heard(js)
        except (NatsError, TimeoutError):
            return False

    async def settled(self, js: JetStreamContext, settings: Settings) -> None:
        """Every alert is heard, what follows from time has followed, and nothing that is due is unsent."""
        await eventually(lambda: all_heard(js), within=60)
        for _ in range(2):
            seen = self._count
            await eventually(lambda seen=seen: self._count > seen + 1)  # type: ignore[misc]
            await eventually(
                lambda: not rows(settings, "SELECT id FROM pager_deliveries WHERE attempts = 0 AND due_at > 0")
            )
            await eventually(
                lambda: not rows(settings, "SELECT id FROM pager_deliveries WHERE due_at > 0 AND error IS NULL")
            )


def ids(calls: Sequence[Call]) -> list[str]:
    return [call.id for call in calls]

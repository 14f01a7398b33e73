"""A console that runs in a test, with people who are signed in."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import httpx
import msgspec

from digest_helpers import facts, runs, write
from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.console import app
from midwatch_services.console.access import key, link
from midwatch_services.console.access.roles import Role
from midwatch_services.console.access.session import Sessions
from midwatch_services.digest import store
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.handlers import written

_TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


@dataclass
class Running:
    """A console at `url`. `context` is what it was wired with."""

    settings: Settings
    url: str
    context: Context

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def link(self, role: Role = Role.ADMIN, by: str = "ann") -> str:
        """A one-time link, as `midwatch console link` prints it."""
        return link.make(self.settings, utc_now, by=by, role=role)

    def cookie(self, role: Role = Role.ADMIN, by: str = "ann") -> tuple[str, str]:
        """Name and value of the cookie of somebody who is signed in, without a request."""
        sessions = Sessions(key.load(self.settings), utc_now)
        return f"midwatch-session-{self.port}", sessions.sealed(sessions.begin(by, role))

    @contextlib.asynccontextmanager
    async def person(self, role: Role | None = None, by: str = "ann") -> AsyncIterator["Person"]:
        """A browser without scripts: signed in with `role`, or a stranger."""
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as client:
            if role is not None:
                client.cookies.set(*self.cookie(role, by))
            yield Person(client)

    async def recorded(self) -> list[dict[str, Any]]:
        """What the bus keeps of what people did, oldest first."""
        js = self.context.js
        reader = await js.pull_subscribe(subjects.audit("*", "acted"), stream=subjects.GOVERNANCE)
        total = (await reader.consumer_info()).num_pending
        found = await reader.fetch(total, timeout=5) if total else []
        await reader.unsubscribe()
        return [
            {"subject": one.subject, **msgspec.to_builtins(codec.decode(one.subject, one.data).data)} for one in found
        ]

    async def done(self) -> list[dict[str, Any]]:
        """The same without what people were refused."""
        return [one for one in await self.recorded() if one["action"] != "refused"]

    async def refused(self, count: int) -> list[tuple[str, str, str, str]]:
        """Who was refused what, in which role and why, once so many stand there: the answer does not wait for it."""

        async def look() -> list[tuple[str, str, str, str]]:
            some = [one for one in await self.recorded() if one["action"] == "refused"]
            assert len(some) == count
            return [(one["by"], one["role"], one["target"], one["detail"]["why"]) for one in some]

        return await eventually(look)


@dataclass
class Person:
    client: httpx.AsyncClient

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def token(self, path: str = "/about") -> str:
        """The token of the forms on a page."""
        found = _TOKEN.search((await self.client.get(path)).text)
        assert found, f"{path} has no form"
        return found[1]

    async def act(self, path: str, token: str | None = None, **fields: Any) -> httpx.Response:
        """Sends a form as a page of ours would; `token` stands in for that of the session."""
        csrf = await self.token() if token is None else token
        headers = {"sec-fetch-site": "same-origin"}
        return await self.client.post(path, data={"csrf": csrf, **fields}, headers=headers)


@contextlib.asynccontextmanager
async def console(settings: Settings) -> AsyncIterator[Running]:
    """The console as the service it is, on a server where everything is declared."""
    contexts: list[Context] = []

    def build(context: Context) -> None:
        contexts.append(context)
        app.build(context)

    up = asyncio.Event()
    service = Service(subjects.CONSOLE, build, tables=False)
    task = asyncio.create_task(run_services([service], settings, started=lambda _: up.set(), restart=False))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    running = link.read(settings.home)
    assert running is not None
    port = running.url.rsplit(":", 1)[1]
    try:
        yield Running(settings, f"http://127.0.0.1:{port}" if not running.issuer else running.url, contexts[0])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def keep_digest(settings: Settings, digest: Digest) -> None:
    """Puts a digest where the service `digest` keeps those that it sent."""
    url = settings.database_for(subjects.DIGEST)
    migrate(url, subjects.DIGEST)
    database = Database(url, name=subjects.DIGEST)
    try:
        database.write_now(lambda conn: store.save(conn, written(digest, settings.console_url), utc_now()))
    finally:
        database.close()


def keep_digests(settings: Settings, *days: str) -> None:
    """The same of some days, of yesterday where none is given: what everybody may say that they have read."""
    for day in [date.fromisoformat(day) for day in days] or [utc_now().date() - timedelta(days=1)]:
        keep_digest(settings, write(facts(agent=None, day=day, runs=runs(resolved=1))))

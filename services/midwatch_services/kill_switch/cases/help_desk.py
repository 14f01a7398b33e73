"""What a help desk says of cases over HTTP: signed as our own calls to it are, and answered once it counts."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.errors import Temporary
from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.database import Database
from midwatch.runtime.probes import Answer, Request

from . import case_store, hands
from .hands import VERBS, Deed, Found

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class _Said(msgspec.Struct):
    by: Name
    reference: Annotated[str, Meta(max_length=256)] = ""
    note: Annotated[str, Meta(max_length=4096)] = ""


class HelpDesk:
    """Answers `POST /kill-switch/cases/<case_id>/accepted`, `/returned` and `/closed`."""

    def __init__(
        self, key: bytes | None, js: JetStreamContext, database: Database, now: Callable[[], datetime]
    ) -> None:
        """`key`: of the signatures; without one nothing is taken."""
        self._key, self._js, self._database, self._now = key, js, database, now
        self._used: dict[str, tuple[datetime, str]] = {}  # ids of good messages: when, and for which path

    async def answer(self, request: Request) -> Answer | None:
        """What is said to a request, None where there is nothing at its path."""
        noun, _, rest = request.path.partition("/")
        case_id, _, verb = rest.partition("/")
        if noun != "cases" or not case_id or verb not in VERBS:
            return None
        if request.method != "POST":
            return _no(405, "say it with POST")
        if self._key is None:
            return _no(503, "no help desk is let in: set MIDWATCH_CASES_WEBHOOK_SECRET for kill-switch")
        if not signing.is_signed(self._key, request.headers, request.body, self._now()):
            return _no(401, "no good signature: sign id.timestamp.body with the secret, within five minutes")
        id = request.headers[signing.ID]
        if not self._is_first_use(id, request.path):
            return _no(401, f"the id {id} was used for another request: the signature does not cover the path")
        try:
            said = msgspec.json.decode(request.body, type=_Said)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _no(400, f"write a JSON object with by, and reference or note: {error}")
        try:
            return await self._do(Deed(verb, case_id, said.by, said.reference, said.note), id)
        except (Temporary, NatsError, TimeoutError) as error:
            return _no(503, f"try again: {str(error) or type(error).__name__}")

    async def _do(self, deed: Deed, id: str) -> Answer:
        found = await self._read(deed.case_id)
        if found is None:
            return _no(404, f"there is no case {deed.case_id}")
        standing = hands.standing(found[0], deed)
        if standing == "may":
            event_id = f"help-desk-{hashlib.sha256(id.encode()).hexdigest()[:32]}"
            await hands.say(self._js, found[0]["agent"], deed, id=event_id, source=hands.HELP_DESK)
            standing, found = await hands.outcome(deed, lambda: self._read(deed.case_id))
        state = {"case_id": deed.case_id, "state": found[0]["state"], "taken_by": found[0]["taken_by"]}
        if standing == "refused":
            return 409, {"ok": False, "error": hands.holder(*found), **state}
        return (200 if standing == "done" else 202), {"ok": True, **state}

    async def _read(self, case_id: str) -> Found | None:
        def work(conn: Connection) -> Found | None:
            case = case_store.read_case(conn, case_id)
            if case is None or case["case_id"] != case_id:  # a program says the whole name
                return None
            return case, case_store.history(conn, case_id)

        return await self._database.read(work)

    def _is_first_use(self, id: str, path: str) -> bool:
        """Whether `id` stands for this request alone; the same request may come again."""
        now = self._now()
        self._used = {one: (at, of) for one, (at, of) in self._used.items() if now - at < 2 * signing.TOLERANCE}
        return self._used.setdefault(id, (now, path))[1] == path


def _no(status: int, error: str) -> Answer:
    return status, {"ok": False, "error": error}

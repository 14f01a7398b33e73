"""What was refused: a line in the log for each, and in the record who tried what they may not."""

import asyncio
import time
from typing import Any

import structlog

from midwatch.errors import Temporary

from .audit import Audit
from .limits import Limits
from .roles import Role
from .session import Session

SIGNING_IN = ("link", "sign_in", "not_held", "no_role")  # what goes wrong there
_A_SECOND = 0.5  # records of one person, or of all strangers together: the bus keeps them for long
_LONGEST = 200  # characters of an address or a reason, which anybody may choose

log = structlog.get_logger("midwatch.console")


class Refusals:
    """Notes what was refused, and holds no answer up. `tasks` are ended with the console."""

    def __init__(self, audit: Audit, tasks: set[asyncio.Task[Any]]) -> None:
        self._audit, self._tasks = audit, tasks
        self._limits = Limits(_A_SECOND)

    def note(self, session: Session | None, path: str, status: int, detail: str) -> None:
        """Says who was refused what, and why: `detail` is a role, or what the page says, with a name behind a colon."""
        why, _, name = detail.partition(":")
        by, role = (session.by, str(session.role)) if session else (name, "")
        path = path[:_LONGEST]
        log.warning("refused", by=by, role=role, path=path, status=status, why=why)
        if not (session and why in tuple(Role)) and why not in SIGNING_IN:
            return
        if self._limits.wait(session.id if session else "", time.monotonic()):
            return
        task = asyncio.create_task(self._record(by or "unknown", role, path, why))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def explain(self, why: str, *secrets: str) -> None:
        """Says in the log what was wrong with an issuer's answer, for whoever set signing in up; none of `secrets`."""
        for one in secrets:
            why = why.replace(one, "…")
        why = "".join(sign if sign.isprintable() else " " for sign in why)[:_LONGEST]
        log.warning("sign_in_does_not_hold", why=why, help="see 'When nobody can sign in' in docs/console.md")

    async def _record(self, by: str, role: str, path: str, why: str) -> None:
        try:
            await self._audit.told(by, role, "refused", target=path, why=why)
        except Temporary as error:
            log.warning("refusal_not_recorded", path=path, why=str(error))

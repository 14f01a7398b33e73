"""The record of what people do: published and kept by the stream before anything else is said of it."""

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AuditActed
from midwatch.errors import Temporary

from .session import Session

SOURCE = f"/services/{subjects.CONSOLE}"
WITHIN = 3.0  # seconds

log = structlog.get_logger("midwatch.console")


class Audit:
    """Says who did what, on MIDWATCH_GOVERNANCE; it needs no database."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        self._nc, self._js = nc, js

    async def acted(
        self, session: Session, action: str, *, agent: str = subjects.FLEET, target: str = "", id: str | None = None,
        **detail: object,
    ) -> bool:  # fmt: skip
        """Records it, once for each `id`, and returns whether it was not there yet. Raises Temporary where the record
        is not kept."""
        return await self.told(session.by, session.role, action, agent=agent, target=target, id=id, **detail)

    async def told(
        self, by: str, role: str, action: str, *, agent: str = subjects.FLEET, target: str = "", id: str | None = None,
        **detail: object,
    ) -> bool:  # fmt: skip
        """The same of somebody who need not be signed in."""
        if not self._nc.is_connected:
            # The client would keep it, and tell later of what was then not done.
            raise Temporary("what was done could not be recorded: there is no connection to NATS")
        words = {name: str(value) for name, value in detail.items()}
        data = AuditActed(by=by, role=role, action=action, target=target, detail=words)
        envelope = codec.envelope("audit", "acted", data, source=SOURCE, id=id)
        headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        subject = subjects.audit(agent, "acted")
        try:
            kept = await self._js.publish(subject, codec.encode(envelope), headers=headers, timeout=WITHIN)
        except (NatsError, TimeoutError, OSError) as error:
            raise Temporary(f"what was done could not be recorded: {error or type(error).__name__}") from error
        return not kept.duplicate

    async def noted(self, session: Session, action: str, **detail: str) -> bool:
        """Records what is done whether or not it can be recorded; the log has what the bus has not. Returns whether the
        record is kept."""
        try:
            await self.told(session.by, session.role, action, **detail)
        except Temporary as error:
            log.error("deed_not_recorded", by=session.by, role=session.role, action=action, why=str(error))
            return False
        return True

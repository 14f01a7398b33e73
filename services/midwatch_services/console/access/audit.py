"""The record of what people do: published and kept by the stream before anything else is said of it."""

from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AuditActed
from midwatch.errors import Temporary

from .session import Session

SOURCE = f"/services/{subjects.CONSOLE}"
WITHIN = 3.0  # seconds


class Audit:
    """Says who did what, on MIDWATCH_GOVERNANCE; it needs no database."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def acted(
        self, session: Session, action: str, *, agent: str = subjects.FLEET, target: str = "", **detail: object
    ) -> None:
        """Records it. Raises Temporary where the record is not kept."""
        words = {name: str(value) for name, value in detail.items()}
        data = AuditActed(by=session.by, role=session.role, action=action, target=target, detail=words)
        envelope = codec.envelope("audit", "acted", data, source=SOURCE)
        headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        subject = subjects.audit(agent, "acted")
        try:
            await self._js.publish(subject, codec.encode(envelope), headers=headers, timeout=WITHIN)
        except (NatsError, TimeoutError, OSError) as error:
            raise Temporary(f"what was done could not be recorded: {error or type(error).__name__}") from error

"""What the logger does with what it reads: save it in one transaction."""

from collections.abc import Awaitable, Callable

from sqlalchemy.engine import Connection

from midwatch.contracts import codec
from midwatch.contracts.envelope import Envelope
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received

from . import store
from .decide import Alert
from .places import Streams
from .redaction.book import RedactionBook


def on_events(
    database: Database, cards: CardBook, streams: Streams, redactions: RedactionBook
) -> Callable[[list[Received]], Awaitable[None]]:
    """Run events: each into the log once, and into its run's row."""

    def tools(agent: str) -> store.Tools:
        return cards.get(agent).tools

    async def handle(batch: list[Received]) -> None:
        place = await streams.of(batch)

        def work(conn: Connection) -> None:
            store.save(conn, batch, tools=tools, place=place, redactions=redactions, lock=database.lock)

        await database.write(work, lock=False)  # instances insert side by side and fold one after another

    return handle


def on_governance(
    database: Database, redactions: RedactionBook
) -> Callable[[list[Received[Envelope[Alert] | None]]], Awaitable[None]]:
    """Alert events, each folded into its alert. Other decisions stay on the stream."""

    async def handle(batch: list[Received[Envelope[Alert] | None]]) -> None:
        alerts = [received.event for received in batch if received.event is not None]

        def work(conn: Connection) -> None:
            for event in alerts:
                store.save_alert(conn, event, redactions)

        if alerts:
            await database.write(work)

    return handle


def decode_alert(subject: str, body: bytes) -> Envelope[Alert] | None:
    """The alert event, or None for what the log does not keep. Raises Refused."""
    if not subject.startswith("midwatch.alert."):
        return None
    return codec.decode(subject, body)

"""What the logger does with what it reads: save it in one transaction."""

from collections.abc import Awaitable, Callable

from sqlalchemy.engine import Connection

from midwatch.contracts import codec
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import HoldLifted, HoldPlaced
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received

from . import store
from .decide import Alert
from .keeping.decide import Hold
from .keeping.hold_store import save_hold
from .places import Streams
from .redaction.book import RedactionBook
from .reviews import Review


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


Decided = Envelope[Alert] | Envelope[Review] | Envelope[Hold] | None
_REVIEWS = ("sampled", "judged", "agreed")


def on_governance(
    database: Database, redactions: RedactionBook
) -> Callable[[list[Received[Decided]]], Awaitable[None]]:
    """Events of alerts, reviews and holds, each folded into its row. Other decisions stay on the stream."""

    async def handle(batch: list[Received[Decided]]) -> None:
        events = [received.event for received in batch if received.event is not None]

        def work(conn: Connection) -> None:
            for event in events:
                if isinstance(event.data, (HoldPlaced, HoldLifted)):
                    save_hold(conn, event)
                else:
                    store.save_decision(conn, event, redactions)

        if events:
            await database.write(work)

    return handle


def decode_governance(subject: str, body: bytes) -> Decided:
    """The event of an alert, a review or a hold, or None for what the log does not keep. Raises Refused."""
    tokens = subject.split(".")
    if tokens[1] in ("alert", "hold") or (tokens[1] == "review" and tokens[-1] in _REVIEWS):
        found: Decided = codec.decode(subject, body)
        return found
    return None

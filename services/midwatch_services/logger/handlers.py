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


Kept = Envelope[Alert] | Envelope[Review]
_REVIEWS = ("sampled", "judged", "agreed")


def on_governance(
    database: Database, redactions: RedactionBook
) -> Callable[[list[Received[Kept | None]]], Awaitable[None]]:
    """Alert and review events, each folded into its row. Other decisions stay on the stream."""

    async def handle(batch: list[Received[Kept | None]]) -> None:
        kept = [received.event for received in batch if received.event is not None]

        def work(conn: Connection) -> None:
            for event in kept:
                store.save_decision(conn, event, redactions)

        if kept:
            await database.write(work)

    return handle


def decode_decision(subject: str, body: bytes) -> Kept | None:
    """The alert or review event, or None for what the log does not keep. Raises Refused."""
    tokens = subject.split(".")
    if tokens[1] == "alert" or (tokens[1] == "review" and tokens[-1] in _REVIEWS):
        return codec.decode(subject, body)
    return None

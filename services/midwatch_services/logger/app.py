"""Wires the logger: two readers, one database."""

from midwatch.contracts import subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from . import handlers
from .keeping.policy import KEEPING, by_card, keep_of
from .keeping.sweep import hourly
from .places import Streams
from .policy import POLICY


def build(context: Context) -> None:
    """Reads run events and governance into the log."""
    price_book.follow(context)
    streams = Streams(context.js, context.database)
    context.read_runs(subjects.LOGGER, handlers.on_events(context.database, context.cards, streams), batch=POLICY.batch)
    context.read(
        subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE, handlers.on_governance(context.database),
        decode=handlers.decode_governance,
    )  # fmt: skip
    keep = keep_of(context.settings, by_card(context.cards.all))
    context.every(KEEPING.every, hourly(context.database, keep, context.now))


SERVICE = Service(name=subjects.LOGGER, build=build)

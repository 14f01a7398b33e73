"""Wires the logger: two readers, one database."""

from midwatch.contracts import subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from . import handlers
from .places import Streams
from .policy import POLICY
from .redaction.book import RedactionBook


def build(context: Context) -> None:
    """Reads run events and governance into the log."""
    price_book.follow(context)
    redactions = RedactionBook(context.cards.get, context.settings.redaction_key)
    streams = Streams(context.js, context.database)
    events = handlers.on_events(context.database, context.cards, streams, redactions)
    context.read_runs(subjects.LOGGER, events, batch=POLICY.batch)
    context.read(
        subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE, handlers.on_governance(context.database, redactions),
        decode=handlers.decode_alert,
    )  # fmt: skip


SERVICE = Service(name=subjects.LOGGER, build=build)

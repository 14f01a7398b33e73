"""Wires the logger: two readers, one database."""

from midwatch.contracts import codec, subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from . import handlers
from .erasure.eraser import LOOK, Erasures
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
    erasures = Erasures(context)
    context.read(
        subjects.GOVERNANCE, subjects.erasure_consumer(subjects.LOGGER), erasures.on_spoken, decode=codec.decode
    )
    context.every(LOOK, erasures.look)


SERVICE = Service(name=subjects.LOGGER, build=build)

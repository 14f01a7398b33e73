"""Wires the logger: readers, an indexer, and the sequencer that chains what is stored; one database."""

from midwatch.contracts import codec, subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from . import handlers
from .erasure.eraser import LOOK, Erasures
from .evidence import notary, sequencer, sinks
from .keeping.policy import KEEPING, by_card, keep_of
from .keeping.sweep import hourly
from .places import Streams
from .policy import POLICY
from .redaction.book import RedactionBook
from .search.indexer import Indexer


def build(context: Context) -> None:
    """Reads run events and governance into the log, and has its runs found."""
    price_book.follow(context)
    redactions = RedactionBook(context.cards.get, context.settings.redaction_key)
    streams = Streams(context.js, context.database)
    events = handlers.on_events(context.database, context.cards, streams, redactions)
    reader = context.read_runs(subjects.LOGGER, events, batch=POLICY.batch)
    context.read(
        subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE, handlers.on_governance(context.database, redactions),
        decode=handlers.decode_governance,
    )  # fmt: skip
    erasures = Erasures(context)
    context.read(
        subjects.GOVERNANCE, subjects.erasure_consumer(subjects.LOGGER), erasures.on_spoken, decode=codec.decode
    )
    context.every(LOOK, erasures.look)
    keep = keep_of(context.settings, by_card(context.cards.all))
    context.every(KEEPING.look, hourly(context.database, keep, context.now))
    indexer = Indexer(context.js, context.database, streams, reader, context.now)
    context.background(indexer.run, name="indexer")
    _prove(context, streams)


def _prove(context: Context, streams: Streams) -> None:
    """Chains what is stored, signs where the chains end, and brings that out of the database."""
    database, settings, now = context.database, context.settings, context.now
    context.every(sequencer.EVERY, sequencer.Sequencer(context.js, database, streams, now).tick)
    signs = notary.Notary(database, settings.evidence_key, now)
    context.on_start(signs.start)
    context.every(notary.EVERY, signs.tick)
    found: list[sinks.Sink] = [
        sinks.FileSink(database, settings.checkpoints_path), sinks.NatsSink(database, context.js, now),
    ]  # fmt: skip
    if settings.checkpoint_url:
        found.append(sinks.UrlSink(database, settings.checkpoint_url))
    context.every(sinks.EVERY, sinks.Courier(found).tick)


SERVICE = Service(name=subjects.LOGGER, build=build)

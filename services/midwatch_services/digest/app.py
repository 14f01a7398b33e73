"""Wires the digest: a look each half minute at what is due."""

from datetime import time, timedelta

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.service import Context, Service
from midwatch.runtime.settings import Settings

from . import erasing
from .handlers import Writer
from .policy import Policy
from .store import PREFIX

_TICK = 30.0  # seconds


def policy_of(settings: Settings) -> Policy:
    """What the settings say of digests."""
    return Policy(words=settings.digest_words, zone=settings.digest_zone, at=time.fromisoformat(settings.digest_at))


def build(context: Context) -> None:
    """Writes what is due at the start and each half minute."""
    settings = context.settings
    outbox = Outbox(context.database, PREFIX, context.js)
    keep = timedelta(days=settings.governance_max_age_days)
    writer = Writer(
        context.nc, context.database, outbox, context.cards, settings, policy_of(settings), context.now, keep
    )
    erasure.join(
        context,
        PREFIX,
        lambda conn, part: erasing.erase(conn, part, outbox),
        tables=erasing.TABLES,
        before=writer.publish,
    )
    context.on_start(writer.tick)
    context.every(_TICK, writer.tick)
    context.every(3600, writer.prune)


SERVICE = Service(subjects.DIGEST, build)

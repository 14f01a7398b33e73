"""Wiring of reviewer-sampler."""

from datetime import timedelta

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.service import Context, Service

from . import erasing
from .handlers import Sampler
from .store import PREFIX

_REVEAL = 60.0  # seconds
_PRUNE = 3600.0  # seconds


def build(context: Context) -> None:
    """Run events in, draws out; keys of past days are revealed at once and each minute."""
    keep = timedelta(days=context.settings.runs_max_age_days)
    sampler = Sampler(context.database, context.nc, context.js, context.cards, context.now, keep=keep)
    context.on_start(sampler.load)
    context.on_start(sampler.reveal)
    context.read_runs(subjects.REVIEWER_SAMPLER, sampler.on_events, outbox=sampler.outbox)
    erasure.join(
        context, PREFIX, erasing.erase, tables=erasing.TABLES, reads=[(subjects.RUNS, subjects.REVIEWER_SAMPLER)]
    )
    context.every(_REVEAL, sampler.reveal)
    context.every(_PRUNE, sampler.prune)


SERVICE = Service(subjects.REVIEWER_SAMPLER, build)

"""Wiring of reviewer-sampler."""

from datetime import timedelta

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.service import Context, Service

from . import erasing
from .handlers import Sampler
from .schedule.handlers import heard
from .schedule.planner import Planner
from .store import PREFIX

_REVEAL = 60.0  # seconds
_LOOK = 60.0  # seconds
_PRUNE = 3600.0  # seconds


def build(context: Context) -> None:
    """Run events in, draws out; keys of past days are revealed at once and each minute."""
    keep = timedelta(days=context.settings.runs_max_age_days)
    sampler = Sampler(
        context.database, context.nc, context.js, context.cards, context.now, keep=keep,
        log_url=context.settings.database_for(subjects.LOGGER),
    )  # fmt: skip
    scheduler = sampler.scheduler
    planner = Planner(context.database, sampler.outbox, context.cards, context.now)
    context.on_start(sampler.load)
    context.on_start(sampler.reveal)
    context.read_runs(subjects.REVIEWER_SAMPLER, sampler.on_events, outbox=sampler.outbox)
    heard_of = (subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_GOVERNANCE)
    context.read(*heard_of, scheduler.on_governance, decode=heard, outbox=sampler.outbox)
    reads = [(subjects.RUNS, subjects.REVIEWER_SAMPLER), heard_of]
    erasure.join(context, PREFIX, erasing.erase, tables=erasing.TABLES, reads=reads)
    context.every(_LOOK, scheduler.look)
    context.every(_LOOK, scheduler.look_at_costs)
    context.every(_LOOK, planner.look)
    context.every(_REVEAL, sampler.reveal)
    context.every(_PRUNE, sampler.prune)


SERVICE = Service(subjects.REVIEWER_SAMPLER, build)

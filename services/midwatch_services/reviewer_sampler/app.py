"""Wiring of reviewer-sampler."""

from datetime import timedelta

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.service import Context, Service

from . import erasing
from .handlers import Sampler
from .judging import handlers as judging
from .judging.claims import Claims
from .judging.handlers import Judging
from .judging.weekly import Weekly
from .schedule.handlers import heard
from .schedule.planner import Planner
from .store import PREFIX

_LOOK = 60.0  # seconds
_PRUNE = 3600.0  # seconds


def build(context: Context) -> None:
    """Runs in, draws out; verdicts in, what stands out; keys of past days are revealed at once and each minute."""
    keep = timedelta(days=context.settings.runs_max_age_days)
    sampler = Sampler(
        context.database, context.nc, context.js, context.cards, context.now, keep=keep,
        log_url=context.settings.database_for(subjects.LOGGER),
    )  # fmt: skip
    scheduler = sampler.scheduler
    judge = Judging(context.database, sampler.outbox, context.cards, context.now)
    claims = Claims(context.database, context.js, context.cards, context.now, keep=keep)
    weekly = Weekly(context.database, sampler.outbox, context.settings, context.now)
    planner = Planner(context.database, sampler.outbox, context.cards, context.now)
    context.on_start(sampler.load)
    context.on_start(sampler.reveal)
    context.on_start(lambda: claims.answering.subscribe(context.nc))
    context.read_runs(subjects.REVIEWER_SAMPLER, sampler.on_events, outbox=sampler.outbox)
    heard_of = (subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_GOVERNANCE)
    context.read(*heard_of, scheduler.on_governance, decode=heard, outbox=sampler.outbox)
    verdicts = (subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS)
    context.read(*verdicts, judge.on_judged, decode=judging.decode, outbox=sampler.outbox)
    context.background(lambda: claims.answering.serve(context.nc), name="claims")
    reads = [(subjects.RUNS, subjects.REVIEWER_SAMPLER), heard_of, verdicts]
    erasure.join(context, PREFIX, erasing.erase, tables=erasing.TABLES, before=weekly.publish, reads=reads)
    for look in (scheduler.look, scheduler.look_at_costs, planner.look, sampler.reveal, weekly.tick):
        context.every(_LOOK, look)
    for prune in (sampler.prune, claims.prune):
        context.every(_PRUNE, prune)


SERVICE = Service(subjects.REVIEWER_SAMPLER, build)

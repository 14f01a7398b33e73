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
from .store import PREFIX

_REVEAL = 60.0  # seconds
_PRUNE = 3600.0  # seconds
_WEEK = 60.0  # seconds between two looks at whether a week is over


def build(context: Context) -> None:
    """Runs in, draws out; verdicts in, what stands out; keys of past days are revealed at once and each minute."""
    keep = timedelta(days=context.settings.runs_max_age_days)
    sampler = Sampler(context.database, context.nc, context.js, context.cards, context.now, keep=keep)
    judge = Judging(context.database, sampler.outbox, context.cards, context.now)
    claims = Claims(context.database, context.js, context.cards, context.now, keep=keep)
    weekly = Weekly(context.database, sampler.outbox, context.settings, context.now)
    context.on_start(sampler.load)
    context.on_start(sampler.reveal)
    context.on_start(lambda: claims.subscribe(context.nc))
    context.read_runs(subjects.REVIEWER_SAMPLER, sampler.on_events, outbox=sampler.outbox)
    context.read(
        subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS, judge.on_judged, decode=judging.decode,
        outbox=sampler.outbox,
    )  # fmt: skip
    context.background(lambda: claims.serve(context.nc), name="claims")
    erasure.join(
        context, PREFIX, erasing.erase, tables=erasing.TABLES, before=weekly.publish,
        reads=[
            (subjects.RUNS, subjects.REVIEWER_SAMPLER), (subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS),
        ],
    )  # fmt: skip
    context.every(_REVEAL, sampler.reveal)
    context.every(_PRUNE, sampler.prune)
    context.every(_PRUNE, claims.prune)
    context.every(_WEEK, weekly.tick)


SERVICE = Service(subjects.REVIEWER_SAMPLER, build)

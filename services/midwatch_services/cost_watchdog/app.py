"""Wiring of cost-watchdog."""

from datetime import timedelta
from functools import partial

from midwatch.contracts import subjects
from midwatch.runtime import erasure, price_book
from midwatch.runtime.service import Context, Service

from . import erasing, store
from .handlers import Watchdog
from .rebuild import rebuild

_TICK = 1.0  # seconds
_PRUNE = 3600.0  # seconds


def build(context: Context) -> None:
    keep = timedelta(days=context.settings.runs_max_age_days)
    budget, acts = context.settings.fleet_budget_day, context.settings.fleet_trip == "act"
    watchdog = Watchdog(
        context.database, context.js, context.cards, context.now, keep, fleet_budget=budget, fleet_refuses=acts
    )
    price_book.follow(context)
    context.on_start(partial(rebuild, watchdog, context.nc, context.js))
    context.on_start(watchdog.load)
    context.on_start(lambda: watchdog.allowances.answering.subscribe(context.nc))
    context.background(lambda: watchdog.allowances.answering.serve(context.nc), name="allowances")
    reader = context.read_runs(subjects.COST_WATCHDOG, watchdog.on_events, outbox=watchdog.outbox)
    watchdog.caught_up = reader.caught_up
    erasure.join(
        context, store.PREFIX, watchdog.erase, tables=erasing.TABLES, write=watchdog.write,
        reads=[(subjects.RUNS, subjects.COST_WATCHDOG)],
    )  # fmt: skip
    context.every(_TICK, watchdog.on_tick)
    context.every(_PRUNE, watchdog.prune)


SERVICE = Service(name=subjects.COST_WATCHDOG, build=build)

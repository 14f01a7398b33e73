"""Wires drift: a look at the clock every few seconds, and once a day at the run log."""

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.service import Context, Service

from . import erasing
from .handlers import Judge
from .store import PREFIX

_LOOK = 5.0  # seconds
_PRUNE = 3600.0  # seconds


def build(context: Context) -> None:
    """Judges what was missed, and each day when it is over."""
    judge = Judge(context.database, context.js, context.settings.database_for(subjects.LOGGER), context.now)
    context.on_start(judge.load)
    erasure.join(context, PREFIX, erasing.erase, tables=erasing.TABLES)
    context.every(_LOOK, judge.look)
    context.every(_PRUNE, judge.prune)


SERVICE = Service(subjects.DRIFT, build)

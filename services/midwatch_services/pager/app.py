"""Wires the pager: alerts in, messages to people out, and a look at the watchdog."""

import random
from datetime import timedelta

from midwatch.contracts import subjects
from midwatch.runtime import erasure
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.service import Context, Service

from . import erasing, watch
from .deliver import Deliverer
from .file import PagerBook
from .handlers import Pager, decode
from .store import PREFIX

_TICK = 0.5  # seconds
_FILE = 2.0  # seconds between two looks at pager.yaml


def build(context: Context) -> None:
    """Reads alerts, sends what follows from them, and follows pager.yaml."""
    outbox = Outbox(context.database, PREFIX, context.js)
    book = PagerBook(context.settings.pager_yaml)
    keep = timedelta(days=context.settings.governance_max_age_days)
    pager = Pager(context.js, context.database, outbox, context.cards, book, context.now, keep)
    deliverer = Deliverer(context.database, book, pager, context.now, random.random, pager.wake)
    pager.wake = deliverer.wake
    looks = watch.Watch(context.nc, context.database, pager, book, context.now)
    context.on_start(pager.load)
    context.on_start(deliverer.load)
    context.read(subjects.GOVERNANCE, subjects.PAGER, pager.on_alerts, decode=decode, outbox=outbox)
    erasure.join(context, PREFIX, erasing.erase, tables=erasing.TABLES, reads=[(subjects.GOVERNANCE, subjects.PAGER)])
    context.background(deliverer.run)
    context.every(_TICK, pager.tick)
    context.every(_FILE, pager.follow_file)
    context.every(watch.LOOK, looks.look)
    context.every(3600, pager.prune)


SERVICE = Service(subjects.PAGER, build)

"""Wires kill-switch: the switch's writes, presence and run events in; reports and proofs out."""

from midwatch.contracts import subjects
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.service import Context, Service

from .handlers import KillSwitch
from .policy import POLICY, Policy
from .store import PREFIX


def _unread(subject: str, body: bytes) -> None:
    """A value of the switch is never refused: one that cannot be read is not running, and is reported so."""


def build(ctx: Context, policy: Policy = POLICY) -> None:
    """Presence is heard before the first write is judged, so that what is contained already is not called late."""
    outbox = Outbox(ctx.database, PREFIX, ctx.js)
    switch = KillSwitch(ctx.nc, ctx.js, ctx.database, outbox, ctx.now, policy)
    ctx.on_start(switch.load)
    ctx.on_start(switch.follow_presence)
    ctx.on_start(switch.catch_up_writes)
    ctx.read_runs(subjects.KILL_SWITCH, switch.on_runs, outbox=outbox)
    writes = subjects.key_stream(subjects.SWITCH)
    ctx.read(writes, subjects.KILL_SWITCH_WRITES, switch.on_writes, decode=_unread, outbox=outbox)
    ctx.background(switch.watch)
    ctx.every(1, switch.expire)
    ctx.every(2, switch.save_known)
    ctx.every(60, switch.prune)


SERVICE = Service(subjects.KILL_SWITCH, build)

"""Wires kill-switch: the switch's writes, presence and run events in; reports and proofs out."""

from midwatch.contracts import subjects
from midwatch.runtime.delivery import RunReader
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.service import Context, Service

from .handlers import KillSwitch
from .store import PREFIX


def _unread(subject: str, body: bytes) -> None:
    """A value of the switch is never refused: one that cannot be read is not running, and is reported so."""


def build(ctx: Context) -> None:
    """Presence is heard before the first write is judged, so that what is contained already is not called late."""
    outbox = Outbox(ctx.database, PREFIX, ctx.js)
    switch = KillSwitch(ctx.nc, ctx.js, ctx.database, outbox, ctx.now)
    ctx.on_start(switch.load)
    ctx.on_start(switch.follow_presence)
    ctx.read_runs(subjects.KILL_SWITCH, switch.on_runs, outbox=outbox)
    _read_writes(ctx, switch, outbox)
    ctx.background(switch.watch)
    ctx.every(1, switch.expire)
    ctx.every(2, switch.save_known)
    ctx.every(60, switch.prune)


def _read_writes(ctx: Context, switch: KillSwitch, outbox: Outbox) -> None:
    reader = RunReader[None](
        ctx.nc,
        ctx.js,
        stream=subjects.key_stream(subjects.SWITCH),
        consumer=subjects.KILL_SWITCH_WRITES,
        service=ctx.name,
        handle=switch.on_writes,
        decode=_unread,
        outbox=outbox,
    )
    ctx.background(reader.run, name=f"reader {subjects.KILL_SWITCH_WRITES}")


SERVICE = Service(subjects.KILL_SWITCH, build)

"""Wires kill-switch: the switch's writes, presence and run events in; reports and proofs out."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.erasure import ErasureResolved
from midwatch.runtime import erasure
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.service import Context, Service
from midwatch.runtime.switchboard import Switchboard

from . import erasing
from .arming import TICK, Arming
from .cases import claims, webhook
from .cases.help_desk import HelpDesk
from .cases.router import LOOK, Router
from .drills.drilling import Drills
from .handlers import KillSwitch
from .policy import POLICY, Policy
from .store import PREFIX
from .trips import tripping

log = structlog.get_logger("midwatch.kill_switch")


def _unread(subject: str, body: bytes) -> None:
    """A value of the switch is never refused: one that cannot be read is not running, and is reported so."""


def build(ctx: Context, policy: Policy = POLICY) -> None:
    """Presence is heard before the first write is judged, so that what is contained already is not called late."""
    outbox = Outbox(ctx.database, PREFIX, ctx.js, sinks={tripping.HALT: partial(tripping.obey, Switchboard(ctx.js))})
    switch = KillSwitch(ctx.nc, ctx.js, ctx.database, outbox, ctx.now, policy)
    ctx.on_start(switch.load)
    ctx.on_start(switch.follow_presence)
    ctx.on_start(switch.catch_up_writes)
    arming = Arming(ctx.nc, ctx.js, ctx.database, outbox, switch, ctx.cards, ctx.now, policy)
    ctx.on_start(arming.load)
    ctx.every(TICK, arming.judge)
    # Who hears of run events and of what people and other services said; each keeps count of repeats by itself.
    runs: list[Callable[[list[Received]], Awaitable[None]]] = [switch.on_runs]
    spoken: list[Callable[[list[Received[Envelope[Any]]]], Awaitable[None]]] = []

    drills = Drills(switch, ctx.cards, ctx.database, outbox, ctx.settings, ctx.now, policy)
    spoken.append(drills.on_spoken)
    ctx.on_start(drills.look_for_overdue)
    ctx.every(2, drills.follow)
    ctx.every(60, drills.look_for_overdue)
    ctx.every(policy.drill_look.total_seconds(), drills.run_due)

    router = _route_cases(ctx, outbox, switch, policy)
    runs.append(router.on_runs)
    spoken.append(router.on_spoken)

    trips = tripping.Tripping(ctx.database, outbox, switch, ctx.cards, ctx.now, policy, ctx.settings.fleet_trip)
    runs.append(trips.on_runs)
    spoken.append(trips.on_spoken)
    ctx.on_start(trips.load)
    ctx.every(tripping.LOOK, trips.look)
    ctx.every(60, trips.prune)

    async def on_runs(batch: list[Received]) -> None:
        for hear in runs:
            await hear(batch)

    async def on_governance(batch: list[Received[Envelope[Any]]]) -> None:
        for hear in spoken:
            await hear(batch)

    ctx.read_runs(subjects.KILL_SWITCH, on_runs, outbox=outbox)
    said = subjects.KILL_SWITCH_GOVERNANCE
    ctx.read(subjects.GOVERNANCE, said, on_governance, decode=codec.decode, outbox=outbox)
    writes = subjects.key_stream(subjects.SWITCH)
    ctx.read(writes, subjects.KILL_SWITCH_WRITES, switch.on_writes, decode=_unread, outbox=outbox)
    _take_part_in_erasures(ctx, router)
    ctx.background(switch.watch)
    ctx.background(partial(_at_the_end, switch.save_known), name="save_at_the_end")
    ctx.every(1, switch.expire)
    ctx.every(2, switch.save_known)
    ctx.every(60, switch.prune)


async def _at_the_end(save: Callable[[], Awaitable[None]]) -> None:
    """Saves once more when the service ends: who signed off a moment before would be taken for silent afterwards."""
    try:
        await asyncio.Event().wait()
    finally:
        try:
            await save()
        except Exception as error:
            log.warning("not_saved_at_the_end", error=repr(error))


def _take_part_in_erasures(ctx: Context, router: Router) -> None:
    buckets = erasing.Buckets(ctx.js)

    async def reload(_: ErasureResolved) -> None:
        await router.reload()

    erasure.join(
        ctx, PREFIX, erasing.erase, tables=erasing.TABLES, before=buckets.erase, after=reload,
        reads=[(subjects.RUNS, subjects.KILL_SWITCH), (subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE)],
    )  # fmt: skip


def _route_cases(ctx: Context, outbox: Outbox, switch: KillSwitch, policy: Policy) -> Router:
    """The router, the queue for people, and the help desk's two doors."""
    key = webhook.key_in(ctx.settings)
    told = webhook.Webhook(webhook.target(ctx.settings, key), ctx.js, ctx.database, outbox, ctx.now, policy)
    if told.is_on:
        ctx.background(told.run)
    ctx.answer(HelpDesk(key, ctx.js, ctx.database, ctx.now).answer)

    router = Router(ctx.nc, ctx.js, ctx.database, outbox, switch, ctx.cards, ctx.now, policy, hooks=told.hear)
    ctx.on_start(router.load)
    ctx.every(LOOK, router.look)
    ctx.every(2, router.save)
    ctx.every(3600, router.forget)
    cases = subjects.key_stream(subjects.CASES)
    ctx.read(cases, subjects.KILL_SWITCH_CASES, router.on_claims, decode=claims.decode, outbox=outbox)
    return router


SERVICE = Service(subjects.KILL_SWITCH, build)

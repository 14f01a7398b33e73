"""`midwatch drill`: halt an agent for real under tickets of its own, measure, restore, and keep what it found."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bus import user as _user
from .output import FAILED, NOT_CONFIRMED, OK, USAGE, JsonOption, clean, console, emit_json, emit_table, fail
from .switch_output import say

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from midwatch.contracts.control import Card
    from midwatch.contracts.governance import SwitchDrilled
    from midwatch_services.kill_switch.drills.drill import Drill
    from midwatch_services.kill_switch.drills.drill_check import Ready

    Work = Callable[[Client, JetStreamContext], Coroutine[Any, Any, int]]

_HINT = ", or say --without-instances to drill the path alone"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("drill")(drill)


def drill(
    agent: Annotated[str, typer.Argument(help="The agent's name.", metavar="AGENT")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")] = False,
    history: Annotated[bool, typer.Option("--history", help="List the drills of the agent.")] = False,
    sign_off: Annotated[
        str | None, typer.Option("--sign-off", help="Sign off a drill that ran by itself.", metavar="DRILL_ID")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")] = None,
    without_instances: Annotated[
        bool, typer.Option("--without-instances", help="Drill the path alone where no instance is armed.")
    ] = False,
    expires: Annotated[
        float, typer.Option(min=3, max=600, help="Seconds after which kill-switch lifts the halt, should this die.")
    ] = 60.0,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:  # fmt: skip
    """Halt an agent FOR REAL for a few seconds, under tickets of the drill's own, and measure what happens.

    Every instance of the agent stops as in any halt: its runs in flight go to its fallback. The halt is lifted at the
    end, however the drill ends. Exit code 0 if it passed, 3 if not, 1 if it could not be run.

    Example: midwatch drill refund-desk --dry-run
    """
    from midwatch.contracts.subjects import is_agent_name

    if not is_agent_name(agent):
        fail(f"{clean(agent)!r} is no agent's name", USAGE)
    if dry_run + history + (sign_off is not None) > 1:
        fail("--dry-run, --history and --sign-off are three commands: give one", USAGE)
    who = by or _user()
    if history:
        work: Work = lambda _, js: _history(js, agent, as_json)  # noqa: E731
    elif sign_off is not None:
        work = lambda _, js: _sign_off(js, agent, sign_off, who, as_json)  # noqa: E731
    elif dry_run:
        work = lambda nc, js: _dry_run(nc, js, agent, without_instances, expires, as_json)  # noqa: E731
    else:
        work = lambda nc, js: _drill(nc, js, agent, who, without_instances, expires, as_json)  # noqa: E731
    if code := asyncio.run(_connected(work)):
        raise typer.Exit(code)


async def _connected(work: "Work") -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.kill_switch.drills.drill import lasting_connection

    try:
        async with lasting_connection(Settings().url) as nc:
            return await work(nc, nc.jetstream(timeout=3))
    except (MidwatchError, NatsError, OSError, TimeoutError) as error:
        fail(clean(str(error) or type(error).__name__))


# The drill itself


async def _drill(
    nc: "Client", js: "JetStreamContext", agent: str, who: str, without_instances: bool, expires: float, as_json: bool
) -> int:
    from midwatch.runtime.settings import Settings
    from midwatch_services.kill_switch.drills import drill, drill_check, drill_plan

    ready = await drill_check.check(nc, js, agent, without_instances=without_instances, hint=_HINT)
    shape = drill_plan.Shape(expires=expires)
    order = drill.Order(ready, who, Settings().drill_url, drill.new_id(datetime.now(UTC)), shape=shape)
    if not as_json:
        say(f"{agent}: drill {order.drill_id}; {_affected(ready)}")
    with _shown(as_json) as tell:
        one = drill.Drill(nc, js, order, tell)
        await _perform(one)
    if one.result is None:
        fail("interrupted before anything was halted")
    if as_json:
        emit_json([one.result])
    else:
        _print(one.result)
    return OK if one.result.passed else NOT_CONFIRMED


async def _perform(one: "Drill") -> None:
    """Ctrl-C and SIGTERM end the drill in order: it restores, and its result says that it was interrupted."""
    from midwatch.link import end

    async def work() -> None:
        await one.perform()

    task, loop = asyncio.create_task(work()), asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []
    with contextlib.suppress(NotImplementedError):  # Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: ending.append(asyncio.ensure_future(end([task], again=1.0))))
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _shown(as_json: bool) -> Any:
    """How far the drill is: a line that changes on a terminal, a line each elsewhere, nothing for scripts."""
    if as_json:
        yield lambda _: None
    elif console.is_terminal:
        with console.status("begins") as status:
            yield lambda what: status.update(clean(what))
    else:
        yield lambda what: say(f"  {clean(what)}")


def _print(result: "SwitchDrilled") -> None:
    say(f"{result.agent}: {'PASSED' if result.passed else 'NOT PASSED'}, drill {result.drill_id}")
    for label, seconds in (
        ("effective after", result.effective_seconds), ("last call admitted after", result.last_call_seconds),
        ("first case at the fallback after", result.first_fallback_seconds), ("restored after", result.restore_seconds),
    ):  # fmt: skip
        say(f"  {label:33}{_seconds(seconds)}")
    say(
        f"  {result.tickets} tickets: {result.answered} answered, {result.fell_back} to the fallback, "
        f"{result.lost} lost, {result.doubled} doubled"
    )
    for failure in result.failures:
        say(f"  {clean(failure)}")
    signed = f"signed off by {clean(result.signed_off_by)}" if result.signed_off_by else "not signed off"
    say(f"  {signed}")


def _seconds(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f} s"


def _affected(ready: "Ready") -> str:
    count, runs = len(ready.instances), ready.in_flight
    if not count:
        return "no instance of the agent runs: nobody but the drill is halted"
    return (
        f"{count} instance{'' if count == 1 else 's'} will be halted FOR REAL, with {runs} "
        f"run{'' if runs == 1 else 's'} in flight now"
    )


# What it would do


async def _dry_run(
    nc: "Client", js: "JetStreamContext", agent: str, without_instances: bool, expires: float, as_json: bool
) -> int:
    from dataclasses import asdict

    from midwatch_services.kill_switch.drills import drill_check, drill_plan

    shape, limits = drill_plan.Shape(expires=expires), drill_plan.LIMITS
    refused, ready = "", None
    try:
        ready = await drill_check.check(nc, js, agent, without_instances=without_instances, hint=_HINT)
    except drill_check.NotReady as error:
        refused = str(error)
    card = await drill_check.read_card(js, agent)
    last = (await drill_check.history(js, agent))[-1:]
    due = _next(card, last[0].started_at if last else None) if card else None
    if as_json:
        emit_json([{
            "agent": agent, "refused": refused or None, "instances": len(ready.instances) if ready else None,
            "armed": len(ready.armed) if ready else None, "runs_in_flight": ready.in_flight if ready else None,
            "seconds_halted_at_least": shape.hold, "seconds_halted_at_most": expires, "limits": asdict(limits),
            "last": last[0] if last else None, "next_scheduled": due,
        }])  # fmt: skip
        return FAILED if refused else OK
    if ready is not None:
        _tell_plan(agent, ready, shape, limits)
    when = "never: its card says so" if due is None else f"{due:%Y-%m-%d %H:%M} UTC"
    if card:
        say(f"The next drill that begins by itself: {when}.")
    if refused:
        fail(clean(refused))
    say("Nothing was written.")
    return OK


def _tell_plan(agent: str, ready: "Ready", shape: Any, limits: Any) -> None:
    longest = max(limits.effective, limits.first_fallback, shape.hold)
    say(f"midwatch drill {agent} would:")
    say(f"  1. send tickets of its own to {agent}, {shape.per_second:g} a second, by an instance of its own")
    say(f"  2. halt {agent} for real after {shape.before:g} s, for {shape.hold:g} to {longest:g} s")
    say("  3. lift that halt, however the drill ends; no halt of anybody else is touched")
    say(f"  4. should the drill die, kill-switch lifts the halt {shape.expires:g} s after it was written")
    say(f"Who is affected: {_affected(ready)}.")
    for one in ready.instances:
        state = "armed" if one.armed else f"not armed, {one.exactly}"
        say(clean(f"  {one.presence.instance}: {state}, {len(one.presence.runs_in_flight)} runs in flight"))
    if ready.in_flight:
        say("Their customers' runs would stop and go to the fallback, as in any halt.")
    say(
        f"What is measured: until the halt is effective (limit {limits.effective:g} s), until the first case is at the "
        f"fallback ({limits.first_fallback:g} s), until all is restored ({limits.restore:g} s), and how many of its "
        "tickets are lost or doubled (none may be)."
    )


def _next(card: "Card", last: datetime | None) -> datetime | None:
    from midwatch_services.kill_switch.drills import drill_plan

    now = datetime.now(UTC)
    since = drill_plan.Last(last, True) if last else None
    due = drill_plan.due_at(card, since, card.applied_at or now)
    return None if due is None else drill_plan.next_window(card.switch.drill_hours, max(due, now))


# Afterwards


async def _history(js: "JetStreamContext", agent: str, as_json: bool) -> int:
    from midwatch_services.kill_switch.drills import drill_check

    found = (await drill_check.history(js, agent))[::-1]
    if as_json:
        emit_json(found)
        return OK
    columns = ("drill", "began", "passed", "effective", "fallback", "restore", "tickets", "lost", "doubled", "by",
               "signed off by", "why not")  # fmt: skip
    rows = [
        {
            "drill": one.drill_id, "began": f"{one.started_at:%Y-%m-%d %H:%M}", "passed": "yes" if one.passed else "NO",
            "effective": _seconds(one.effective_seconds), "fallback": _seconds(one.first_fallback_seconds),
            "restore": _seconds(one.restore_seconds), "tickets": one.tickets, "lost": one.lost,
            "doubled": one.doubled, "by": one.by, "signed off by": one.signed_off_by,
            "why not": "; ".join(one.failures),
        }
        for one in found
    ]  # fmt: skip
    emit_table(columns, rows, empty=f"No drill of {agent} was run yet: `midwatch drill {agent} --dry-run`.")
    return OK


async def _sign_off(js: "JetStreamContext", agent: str, drill_id: str, who: str, as_json: bool) -> int:
    import msgspec

    from midwatch_services.kill_switch.drills import drill, drill_check

    found = {one.drill_id: one for one in await drill_check.history(js, agent)}
    result = found.get(drill_id)
    if result is None:
        fail(f"{agent} has no drill {clean(drill_id)}: `midwatch drill {agent} --history` lists them")
    if result.signed_off_by:
        fail(f"{drill_id} is signed off already by {clean(result.signed_off_by)}")
    signed = msgspec.structs.replace(result, signed_off_by=who)
    await drill.publish(js, signed, "signed")
    if as_json:
        emit_json([signed])
    else:
        _print(signed)
    return OK

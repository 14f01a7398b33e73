"""`midwatch halt`, `resume` and `switch`: the operator's hand on the switch. Needs NATS and nothing else of ours."""

import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from . import switch_history, write_off
from .bus import CONNECT, connected, unreached, user
from .bus import run as run_command
from .output import NOT_CONFIRMED, USAGE, JsonOption, clean, emit_json, emit_table, fail
from .switch_output import (
    Shown,
    agent_row,
    events_kept_back,
    instance_json,
    instance_row,
    say,
    shared_name,
    stray_rows,
    tell_written,
)
from .tables import runs_without_presence

if TYPE_CHECKING:
    from midwatch.runtime.switchboard import Scope, Switchboard

_LIMIT = "5"  # seconds that --wait waits by default


class _Halt(TyperCommand):
    """Lets `--wait` stand alone or with a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = [
            f"--wait={_LIMIT}" if arg == "--wait" and not _is_number(args[place + 1 : place + 2]) else arg
            for place, arg in enumerate(args)
        ]
        return super().parse_args(ctx, given)


def _is_number(some: list[str]) -> bool:
    return bool(some) and some[0].replace(".", "", 1).isdigit()


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("halt", cls=_Halt)(halt)
    app.command("resume")(resume)
    group = typer.Typer(invoke_without_command=True)
    group.callback()(switch)
    group.command("history")(switch_history.history)
    group.command("write-off")(write_off.write_off)
    app.add_typer(group, name="switch")


Agent = Annotated[str | None, typer.Argument(help="The agent's name, or --fleet for all.", metavar="AGENT")]
Fleet = Annotated[bool, typer.Option("--fleet", help="All agents.")]
Tool = Annotated[str | None, typer.Option("--tool", help="Only this tool of the agent.")]
Run = Annotated[str | None, typer.Option("--run", help="Only this run of the agent.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; people will read it.")]
By = Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")]


def halt(
    reason: Reason,
    agent: Agent = None,
    fleet: Fleet = False,
    tool: Tool = None,
    run: Run = None,
    by: By = None,
    fallback: Annotated[str | None, typer.Option(help="Who takes over: human or agent:NAME.")] = None,
    wait: Annotated[
        float | None,
        typer.Option(metavar="[SECONDS]", help="Print the proof as it fills; exit 0 only when contained, 3 when not "
                     f"within the limit (default {_LIMIT} s)."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Lift the halt by itself after 30m, 2h or 1 day.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:  # fmt: skip
    """Stop an agent, all of them, one tool or one run, at once.

    Example: midwatch halt refund-desk --reason "refunds the wrong customers" --wait
    """
    scope = _scope(agent, fleet, tool, run)
    how: dict[str, Any] = {"reason": reason, "by": by or user(), "fallback": _fallback(fallback)}
    how["expires_at"] = _expiry(expires)
    run_command(_halt(scope, how, wait, as_json))


def resume(
    reason: Reason,
    agent: Agent = None,
    fleet: Fleet = False,
    tool: Tool = None,
    run: Run = None,
    by: By = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Lift a halt. The fleet's does not lift an agent's own, nor the other way round.

    Example: midwatch resume refund-desk --reason "fixed in version 2026-11-23"
    """
    scope = _scope(agent, fleet, tool, run)
    run_command(_resume(scope, {"reason": reason, "by": by or user()}, as_json))


def switch(context: typer.Context, as_json: Annotated[bool, JsonOption] = False) -> None:
    """Show every agent and instance: halted or not, armed or not, the epoch of each key, runs in flight.

    An instance is armed while it was heard within three seconds and has applied each of its keys as it stands. Agents
    that send no presence are listed with their runs in flight where kill-switch's database can be read. Where any
    instance runs it listens for 1.5 s, to say which names more than one process uses.

    Example: midwatch switch --json
    """
    if context.invoked_subcommand is None:
        run_command(_switch(as_json))


# What was asked


def _scope(agent: str | None, fleet: bool, tool: str | None, run: str | None) -> "Scope":
    from midwatch.errors import MidwatchError
    from midwatch.runtime.switchboard import Scope

    if (agent is None) is not fleet:
        fail("name one agent, or say --fleet for all of them", USAGE)
    try:
        return Scope(agent, tool, run)
    except MidwatchError as error:
        fail(str(error), USAGE)


def _fallback(text: str | None) -> str | None:
    from midwatch.contracts.subjects import is_agent_name

    if text is not None and text != "human" and not (text.startswith("agent:") and is_agent_name(text[6:])):
        fail(f"{text!r} is no fallback: write human or agent:NAME", USAGE)
    return text


def _expiry(text: str | None) -> datetime | None:
    from midwatch_services.cards.values import seconds

    if text is None:
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds(text))
    except (ValueError, OverflowError) as error:
        fail(f"--expires {error}", USAGE)


# On the bus


_NOT_HALTED = (
    "The halt was not acknowledged. Agents that cannot reach NATS either fall back by themselves once their lease (5 s "
    "unless their card says otherwise) has run out, save those whose card says `lost_control: carry_on`; agents that "
    "can reach it run on. Start NATS or set NATS_URL and halt again; until then only ending their processes is sure."
)
_NOT_RESUMED = "The resume was not acknowledged: start NATS again or set NATS_URL."
_NOT_KNOWN = "What is armed is not known: start NATS again or set NATS_URL."


async def _halt(scope: "Scope", how: dict[str, Any], wait: float | None, as_json: bool) -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch.runtime.switchboard import Switchboard
    from midwatch_services.kill_switch.proof import Proof
    from midwatch_services.kill_switch.witness import Witness

    url = Settings().url
    written = None
    try:
        async with connected(url) as nc:
            js = nc.jetstream(timeout=CONNECT)
            proof, witness, show = Proof(nc, js), Witness(nc), Shown(as_json)
            if wait is not None:
                await proof.listen(scope.agent)
                await witness.listen(scope.agent)
            written = await Switchboard(js).halt(scope, **how)
            tell_written(scope, written, "halted", as_json)
            witness.follow(scope, written.revision, show.first_case)
            await _warn_without_card(js, scope.agent)
            if wait is None:
                return 0
            verdict, lifted = await proof.wait(scope, written.revision, written.record, wait, show.changes)
            if verdict.contained and lifted is None and verdict.reports:
                await witness.linger(show.moved)
            return show.end(scope, verdict, lifted, wait, witness)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        if written is None:
            return unreached(error, url, _NOT_HALTED)
        unreached(error, url, f"The halt stands at epoch {written.revision}; who has applied it is not known.")
        return NOT_CONFIRMED


async def _resume(scope: "Scope", how: dict[str, Any], as_json: bool) -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch.runtime.switchboard import Switchboard

    url = Settings().url
    try:
        async with connected(url) as nc:
            board = Switchboard(nc.jetstream(timeout=CONNECT))
            written = await board.resume(scope, **how)
            tell_written(scope, written, "resumed", as_json)
            if not as_json:
                await _tell_still_halted(board, scope)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, _NOT_RESUMED)
    return 0


async def _switch(as_json: bool) -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch_services.kill_switch import view

    url = Settings().url
    try:
        async with connected(url) as nc:
            js = nc.jetstream(timeout=CONNECT)
            _, running = await view.read(nc, js)
            shared = await view.shared_names(nc) if running else {}
            agents, instances = await view.read(nc, js)  # as it stands now, and not as it did before that
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, _NOT_KNOWN)
    by_name = {agent.agent: agent for agent in agents}
    heard = {one.presence.agent for one in instances}
    strays = {agent: runs for agent, runs in runs_without_presence().items() if agent not in heard}
    if as_json:
        emit_json(instance_json(one, by_name[one.presence.agent], shared) for one in instances)
        emit_json({"agent": agent, "instance": None, "armed": False, "why_not": "sends no presence",
                   "runs_in_flight": runs} for agent, runs in strays.items())  # fmt: skip
        return 0
    rows = [instance_row(one, by_name[one.presence.agent], shared) for one in instances]
    rows += stray_rows(strays, by_name)
    absent = set(by_name) - heard - set(strays)
    rows += [{"agent": name, "instance": "none runs", **agent_row(by_name[name])} for name in absent]
    rows.sort(key=lambda row: (row["agent"], row["instance"]))
    empty = "No agent is known yet: write a card with `midwatch card new NAME`, then `midwatch apply`."
    emit_table(("agent", "instance", "switch", "stage", "armed", "runs", "draining", "epochs"), rows, empty=empty)
    for instance in instances:
        if said := shared_name(instance, shared):
            say(f"{clean(instance.presence.agent)}/{clean(instance.presence.instance)}: {said}")
        if text := events_kept_back(instance):
            say(text)
    for agent in agents:
        for one in agent.halts:
            what = one["key"] if one["target"] is None else f"{one['key']} {one['target']}"
            by = f" by {one['by']}" if one["by"] else ""
            say(f"{clean(agent.agent)}: {clean(what)} is halted{clean(by)}: {clean(one['reason'])}")
    return 0


async def _warn_without_card(js: Any, agent: str | None) -> None:
    from nats.errors import Error as NatsError
    from nats.js.errors import NotFoundError

    from midwatch.contracts import subjects

    if agent is None:
        return
    with suppress(NatsError, TimeoutError):  # the halt stands; that the card cannot be looked up changes nothing
        try:
            subject = subjects.key_subject(subjects.AGENTS, agent)
            await js.get_last_msg(subjects.key_stream(subjects.AGENTS), subject, direct=True)
        except NotFoundError:
            sys.stderr.write(f"midwatch: no scope card is applied for {agent}: see that the name is right\n")


async def _tell_still_halted(board: "Switchboard", scope: "Scope") -> None:
    from midwatch_services.kill_switch import decide, view

    entries = {entry.key: entry for entry in await board.entries()}
    if scope.agent is not None:
        above = [one["key"] for one in view.agent_view(scope.agent, entries).halts
                 if one["target"] is None and one["key"] != scope.key]  # fmt: skip
        for key in above:
            say(f"{clean(scope.agent)}: still halted by {clean(key)}")
        return
    agents = {agent for key in entries if decide.is_key(key) and (agent := decide.agent_of(key))}
    for agent in sorted(agents):
        if any(one["key"] == f"agent.{agent}" and f"agent.{agent}" in entries
               for one in view.agent_view(agent, entries).halts):  # fmt: skip
            say(f"{clean(agent)}: still halted by its own key; `midwatch resume {agent}` lifts that")

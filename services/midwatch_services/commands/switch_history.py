"""`midwatch switch history`: every halt that was, whether it was contained, what it stopped, and what ended it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import USAGE, JsonOption, clean, emit_json, emit_table, fail
from .switch_output import count, report_line, say
from .tables import kill_switch_tables

if TYPE_CHECKING:
    from datetime import datetime

    from midwatch_services.kill_switch.decide import Halt
    from midwatch_services.kill_switch.history import Past

_COLUMNS = ("when", "epoch", "what", "by", "why", "contained", "stopped", "first case", "ended")


def history(
    agent: Annotated[str | None, typer.Argument(help="Only halts of this agent.", metavar="AGENT")] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="Those of the fleet; with AGENT, both.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    epoch: Annotated[int | None, typer.Option(help="Tell the halt of this epoch whole, instance by instance.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the halts, the newest first: who, why, contained or not, what was stopped, and what ended it.

    A halt made while Midwatch's services were down is listed once kill-switch runs again.

    Example: midwatch switch history refund-desk --fleet
    """
    from midwatch.contracts.subjects import is_agent_name
    from midwatch_services.kill_switch import history as tables

    if agent is not None and not is_agent_name(agent):
        fail(f"{clean(agent)!r} is no agent's name", USAGE)
    most = limit if epoch is None else None
    with kill_switch_tables("history") as database:
        found = database.read_now(lambda conn: tables.read(conn, agent=agent, fleet=fleet, epoch=epoch, limit=most))
    if epoch is not None and not found:
        fail(f"no halt of epoch {epoch} is known: list them with `midwatch switch history`")
    if as_json:
        emit_json(_json(past) for past in found)
    elif epoch is not None:
        for past in found:
            _tell(past)
    else:
        rows = [dict(zip(_COLUMNS, _row(past), strict=True)) for past in found]
        emit_table(_COLUMNS, rows, empty="Nothing was halted so far.")


def what(halt: "Halt") -> str:
    """What was halted, in words; not clean yet."""
    if halt.agent is None:
        name = "the fleet"
    elif halt.kind == "agent":
        name = halt.agent
    elif halt.target is None:
        name = f"all {halt.kind} of {halt.agent}"
    else:
        name = f"{halt.kind.removesuffix('s')} {halt.target} of {halt.agent}"
    return f"{name} (drill)" if halt.record.drill else name


def _when(at: "datetime") -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _contained(past: "Past") -> str:
    phase, report = past.halt.phase, past.report
    if phase == "pending":
        return "not judged yet" if past.closed_at is None else "ended before it was judged"
    if phase == "unconfirmed":
        missing = [f"{one.agent}/{one.instance}" for one in report.instances if _missing(one)] if report else []
        return f"NOT contained: {', '.join(missing)}"
    known = report is not None and report.seconds is not None
    proof = f"after {report.seconds:.3f} s" if report and known else "yes, nobody measured when"
    return proof if phase == "contained" else f"REVOKED ({proof})"


def _missing(one: Any) -> bool:
    return one.state not in ("applied", "left") or bool(one.running or one.draining)


def _ended(past: "Past") -> str:
    if past.closed_at is None:
        until = past.halt.record.expires_at
        return f"stands until {_when(until)}" if until else "stands"
    by = past.ended_by
    if by is None:
        return _when(past.closed_at)
    who = f" by {by.by}" if by.by else ""
    if by.state == "halted":
        return f"{_when(past.closed_at)} replaced at epoch {past.ended_epoch}{who}"
    return f"{_when(past.closed_at)} lifted{who}: {by.reason}"


def _first(past: "Past") -> str:
    if past.first_case_seconds is None:
        return "none"
    return f"after {past.first_case_seconds:.3f} s"


def _row(past: "Past") -> tuple[Any, ...]:
    halt = past.halt
    return (
        _when(halt.requested_at), halt.epoch, what(halt), halt.record.by, halt.record.reason, _contained(past),
        past.runs_stopped, _first(past), _ended(past),
    )  # fmt: skip


def _tell(past: "Past") -> None:
    halt, record = past.halt, past.halt.record
    by = f" by {record.by}" if record.by else ""
    say(clean(f"{what(halt)}: halted {_when(halt.requested_at)} UTC{by}, epoch {halt.epoch} of {halt.key}"))
    say(clean(f"  why        {record.reason or 'no reason was given'}"))
    if record.expires_at:
        say(f"  until      {_when(record.expires_at)} UTC")
    if record.fallback:
        say(clean(f"  fallback   {record.fallback}, instead of the card's"))
    say(clean(f"  contained  {_contained(past)}"))
    if past.report:
        for one in past.report.instances:
            say("  " + report_line(one))
    if past.report and past.report.reason:
        say(clean(f"  revoked    {past.report.reason}"))
    say(f"  stopped    {count(past.runs_stopped, 'run')}; {count(past.cases, 'case')} at the fallback, "
        f"the first {_first(past)}")  # fmt: skip
    say(clean(f"  ended      {_ended(past)}"))


def _json(past: "Past") -> dict[str, Any]:
    halt, report = past.halt, past.report
    return {
        "key": halt.key, "target": halt.target, "epoch": halt.epoch, "what": what(halt),
        "requested_at": halt.requested_at, "record": halt.record, "phase": halt.phase,
        "contained": halt.phase == "contained", "seconds": report.seconds if report else None,
        "instances": report.instances if report else [], "revoked": report.reason if report else "",
        "runs_stopped": past.runs_stopped, "cases": past.cases, "first_case_seconds": past.first_case_seconds,
        "closed_at": past.closed_at, "ended_by": past.ended_by, "ended_epoch": past.ended_epoch,
    }  # fmt: skip

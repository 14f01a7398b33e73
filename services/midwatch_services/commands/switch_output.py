"""How `midwatch halt`, `resume` and `switch` print: what was written, the proof as it fills, who is armed."""

import re
from typing import TYPE_CHECKING, Any

from .output import NOT_CONFIRMED, OK, clean, console, emit_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from midwatch.contracts.governance import InstanceReport
    from midwatch.runtime.switchboard import Scope, Written
    from midwatch_services.kill_switch.decide import Verdict, Who
    from midwatch_services.kill_switch.view import AgentView, InstanceView
    from midwatch_services.kill_switch.witness import FirstCase, Witness

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # what a shell takes as one word, and no command as an option
_MANY_WAIT = 1_000  # events on an instance's disk that are more than what is just under way


def say(line: str) -> None:
    """One line that stays one, however narrow the terminal."""
    console.print(line, soft_wrap=True)


def count(number: int, noun: str) -> str:
    """For instance `1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def name_of(scope: "Scope") -> str:
    """What is halted, in words; not clean yet."""
    if scope.agent is None:
        return "the fleet"
    noun = "run" if scope.run_id else "tool"
    return scope.agent if scope.target is None else f"{noun} {scope.target} of {scope.agent}"


def tell_written(scope: "Scope", written: "Written", verb: str, as_json: bool) -> None:
    """The outcome of a write: `verb` is halted or resumed."""
    if as_json:
        emit_json([{"key": written.key, "target": scope.target, "epoch": written.revision, "changed": written.changed,
                    "record": written.record}])  # fmt: skip
        return
    record, name = written.record, clean(name_of(scope))
    if written.changed:
        until = f", until {record.expires_at:%Y-%m-%d %H:%M:%S} UTC" if record.expires_at else ""
        say(f"{name}: {verb} at epoch {written.revision} of {written.key}{until}")
    elif verb == "resumed":
        by = f"; resumed by {clean(record.by)} ({clean(record.reason)})" if record.by else ""
        say(f"{name}: was not halted by {written.key} (epoch {written.revision}); nothing was changed{by}")
    else:
        by = f" by {clean(record.by)}" if record.by else ""
        say(f"{name}: is halted already{by} ({clean(record.reason)}), epoch {written.revision}; left as it is")


class Shown:
    """What was printed of a proof, so that each change is printed once."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._lines: dict[tuple[str, str], str] = {}
        self.moved = False  # whether anything was in flight

    def changes(self, verdict: "Verdict") -> None:
        """Prints what is new in `verdict`."""
        for report in verdict.reports:
            who, line = (report.agent, report.instance), report_line(report, verdict.blocking)
            if self._lines.get(who) != line and not self._as_json and report.state != "unconfirmed":
                say(line)
            self._lines[who] = line
            self.moved = self.moved or bool(report.running or report.draining)

    def first_case(self, first: "FirstCase") -> None:
        """Prints when the fallback had its first case."""
        if not self._as_json:
            say(f"  first case at the fallback after {first.seconds:.2f} s: {first.case_id} ({clean(first.to)})")

    def end(self, scope: "Scope", verdict: "Verdict", lifted: Any, limit: float, caused: "Witness") -> int:
        """Prints the outcome and returns the exit code."""
        done = verdict.contained and lifted is None
        if self._as_json:
            emit_json([{"contained": done, "seconds": verdict.seconds if done else None, "instances": verdict.reports,
                        "lifted": lifted, "runs_stopped": caused.runs_stopped, "cases": caused.cases,
                        "first_case": caused.first_case._asdict() if caused.first_case else None}])  # fmt: skip
            return OK if done else NOT_CONFIRMED
        name = clean(name_of(scope))
        if lifted is not None:
            say(f"{name}: NOT contained: lifted meanwhile by {clean(lifted.by)} ({clean(lifted.reason)})")
        elif done:
            applied = sum(report.state == "applied" for report in verdict.reports)
            of = f"{count(applied, 'instance')} in {verdict.seconds:.3f} s" if applied else "no instance runs"
            moved = self.moved or caused.runs_stopped
            figures = f"{count(caused.runs_stopped, 'run')} stopped, {count(caused.cases, 'case')} so far"
            say(f"{name}: contained, {of}{f'; {figures}' if moved else ''}")
        else:
            self._missing(verdict)
            say(f"{name}: NOT contained within {limit:g} s")
        return OK if done else NOT_CONFIRMED

    def _missing(self, verdict: "Verdict") -> None:
        """Names who has not confirmed, and how to go on where a process is dead."""
        from midwatch_services.kill_switch.decide import NO_PRESENCE

        command = ""
        for report in verdict.reports:
            if (report.agent, report.instance) not in verdict.cleared and report.state in ("unconfirmed", "lapsed"):
                if report.state == "unconfirmed":
                    say(report_line(report, verdict.blocking))
                if (report.agent, report.instance) in verdict.shared:
                    say("  two processes use this name: give each its own")
                if report.instance != NO_PRESENCE:
                    command = command or write_off_command(report.agent, report.instance)
        if command:
            say(clean(f"  if that process is dead: {command}"))


def write_off_command(agent: str, instance: str) -> str:
    """What writes an instance off, to be copied into a shell; empty for a name that no SDK makes, since anybody on the
    bus may have chosen it."""
    if not (_PLAIN.fullmatch(agent) and _PLAIN.fullmatch(instance)):
        return ""
    return f'midwatch switch write-off {instance} --agent {agent} --reason "…"'


def report_line(report: "InstanceReport", blocking: "Collection[Who]" = ()) -> str:
    """How far an instance has got. `blocking`: those that stop only at their next call."""
    words = {
        "applied": "has applied it", "unconfirmed": "has not confirmed",
        "lapsed": "is silent; its lease must have run out", "left": "has signed off",
    }  # fmt: skip
    line = f"  {report.agent}/{report.instance} {words[report.state]}"
    if report.seconds is not None:
        line += f", nothing moves, after {report.seconds:.3f} s"
    if report.running:
        line += f"; running: {', '.join(report.running)}"
        if (report.agent, report.instance) in blocking:
            line += ", which stops before its next call (threads)"
    if report.draining:
        line += f"; draining: {', '.join(report.draining)}"
    return clean(line)


def instance_json(one: "InstanceView", agent: "AgentView", shared: "Mapping[Who, int]") -> dict[str, Any]:
    """An instance as one object of `midwatch switch --json`. `shared`: how many processes use each name that more than
    one uses."""
    import msgspec

    said = msgspec.structs.asdict(one.presence)
    return {
        **{name: said.pop(name) for name in ("agent", "instance")},
        "armed": one.armed,
        "why_not": one.exactly,
        "shared_name": shared_name(one, shared),
        "halted": agent.halted,
        "halts": agent.halts,
        "epochs": agent.epochs,
        "route": agent.stage,
        "age_seconds": round(one.age, 3),
        **said,
    }


def instance_row(one: "InstanceView", agent: "AgentView", shared: "Mapping[Who, int]") -> dict[str, Any]:
    """An instance as a row of the table."""
    processes = shared.get((one.presence.agent, one.presence.instance))
    return {
        **agent_row(agent),
        "agent": agent.agent,
        "instance": one.presence.instance + (f" ({processes} processes)" if processes else ""),
        "armed": "yes" if one.armed else f"NO: {one.exactly}",
        "runs": len(one.presence.runs_in_flight),
        "draining": len(one.presence.draining),
    }


def shared_name(one: "InstanceView", shared: "Mapping[Who, int]") -> str:
    """That more than one process uses the name of an instance, and what to do; empty where one does."""
    processes = shared.get((one.presence.agent, one.presence.instance))
    if not processes:
        return ""
    return (
        f"{processes} processes use this name, and only the one that spoke last is shown: give each an `instance` of "
        "its own in midwatch.connect, or none, and it gets one"
    )


def events_kept_back(one: "InstanceView") -> str | None:
    """What an instance could not publish, in words; None while all is well or just under way."""
    waiting, lost = one.presence.spooled, one.presence.lost
    if not lost and waiting < _MANY_WAIT:
        return None
    gone = f", {lost} are lost, its disk and memory were full" if lost else ""
    return clean(f"{one.presence.agent}/{one.presence.instance}: {waiting} events wait for the server{gone}")


def agent_row(agent: "AgentView") -> dict[str, Any]:
    """What a row says of the agent."""
    partly = " (in part)" if agent.halts and not agent.halted else ""
    epochs = " ".join(f"{key.partition('.')[0]}:{revision}" for key, revision in agent.epochs.items())
    return {"switch": "HALTED" if agent.halted else f"running{partly}", "epochs": epochs, "stage": agent.stage}


def stray_rows(runs: "Mapping[str, Sequence[str]]", agents: "Mapping[str, AgentView]") -> list[dict[str, Any]]:
    """The agents that kill-switch knows by their runs alone."""
    return [
        {**(agent_row(agents[name]) if name in agents else {}), "agent": name, "instance": "sends no presence",
         "armed": "NO: nobody knows whether it obeys", "runs": len(some)}
        for name, some in runs.items()
    ]  # fmt: skip

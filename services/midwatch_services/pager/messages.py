"""What people read: a plain sentence first, then what was done, how many it is, and how to take it on. Pure."""

import shlex
from datetime import datetime

from msgspec import Struct

from midwatch.contracts.reviews import DigestWritten, ReviewSummed

from . import words
from .decide import Tell
from .state import Group

_SHORT = 12  # characters of an id that are typed; ids of ours are 32 hex digits
_HEX = frozenset("0123456789abcdef")
_ACTIONS = {
    "halted_run": "the run was halted", "halted_agent": "the agent was halted", "halted_fleet": "the fleet was halted",
    "would_halt_run": "the run would have been halted", "would_halt_agent": "the agent would have been halted",
    "would_halt_fleet": "the fleet would have been halted", "none": "nothing was halted",
}  # fmt: skip


class Message(Struct, frozen=True, kw_only=True):
    """One message, as it is saved until it is sent. `id` is the same at every attempt. Texts are of one line each and
    bounded; what a target would read as markup is still in them."""

    id: str
    what: str
    group_id: str
    alert_id: str
    severity: str
    agent: str
    rule: str
    title: str
    action_taken: str = "none"
    run_id: str = ""
    evidence: str = ""
    alerts: int = 1
    open: int = 1
    repeats: int = 0
    note: str = ""
    remark: str = ""
    started_at: datetime
    ended_at: datetime | None = None
    digest: DigestWritten | None = None
    summed: ReviewSummed | None = None

    @property
    def page(self) -> DigestWritten | ReviewSummed | None:
        """What is to be read at length, where the message brings that."""
        return self.digest or self.summed


def of(tell: Tell, remark: str = "") -> Message:
    """The message of a decision."""
    return firing(tell.group, tell.id, tell.what, tell.note, remark)


def digest(data: DigestWritten, now: datetime) -> Message:
    """The message of a digest; there is one an agent and day."""
    id = f"digest-{data.agent}-{data.date}"
    return Message(
        id=id, what="digest", group_id=id, alert_id="", severity="info", agent=data.agent, rule="digest",
        title=words.one_line(data.title, words.TITLE_LIMIT), started_at=now, digest=data,
    )  # fmt: skip


def summed(data: ReviewSummed, now: datetime) -> Message:
    """The message of a note of corrections; there is one an agent and week."""
    id = f"summed-{data.agent}-{data.week}"
    return Message(
        id=id, what="digest", group_id=id, alert_id="", severity="info", agent=data.agent, rule="corrections",
        title=words.one_line(data.title, words.TITLE_LIMIT), started_at=now, summed=data,
    )  # fmt: skip


def chat(data: DigestWritten | ReviewSummed, limit: int) -> str:
    """The beginning of a digest or a note, safe for every target, in at most `limit` characters: lines are left out
    whole, and where the rest is stands last."""
    lines = [words.plain("".join(c if c.isprintable() else " " for c in line)) for line in data.brief.splitlines()]
    while len("\n".join(lines)) > limit and len(lines) > 1:
        del lines[-2 if len(lines) > 2 else -1]
    return "\n".join(lines)[:limit]


def firing(group: Group, id: str, what: str, note: str = "", remark: str = "") -> Message:
    """What there is to say of a group."""
    return Message(
        id=id, what=what, group_id=group.group_id, alert_id=group.alert_id, severity=group.severity, agent=group.agent,
        rule=words.one_line(group.rule), title=words.one_line(group.title, words.TITLE_LIMIT),
        action_taken=words.one_line(group.action_taken), run_id=words.one_line(group.run_id),
        evidence=words.one_line(group.evidence, 500), alerts=group.alerts, open=group.open, repeats=group.repeats,
        note=words.one_line(note, words.TITLE_LIMIT), remark=words.one_line(remark, words.TITLE_LIMIT),
        started_at=group.opened_at, ended_at=group.calm_since if what == "ended" else None,
    )  # fmt: skip


def acknowledge(alert_id: str) -> str:
    """The command that takes the alert on."""
    short = alert_id[:_SHORT] if len(alert_id) == 32 and set(alert_id) <= _HEX else words.one_line(alert_id, 128)
    return f"midwatch ack {shlex.quote(short)}"


def title(message: Message) -> str:
    """The first line, safe for every target."""
    begin = {
        "page": "",
        "update": "Update: ",
        "escalated": "Escalated: ",
        "again": "Again: ",
        "ended": "Over: ",
        "digest": "",
    }
    return begin.get(message.what, "TEST: ") + words.plain(message.title)


def body(message: Message) -> str:
    """The rest, safe for every target: a fact a line."""
    lines = [words.plain(message.note).capitalize() + "."] if message.note else []
    lines.append(f"Agent {message.agent}, {words.plain(message.rule)} ({message.severity}).")
    action = _ACTIONS.get(message.action_taken, words.plain(message.action_taken))
    if message.what != "test":
        lines.append(f"What was done: {action}.")
    if message.alerts > 1 or message.repeats:
        again = f", raised again {message.repeats} times" if message.repeats else ""
        lines.append(f"{message.alerts} alerts of this cause, {message.open} of them open{again}.")
    if message.run_id:
        lines.append(f"Run: {words.plain(message.run_id)}")
    if message.evidence:
        lines.append(f"See: {words.evidence(message.evidence)}")
    if message.remark:
        lines.append(f"Note: {words.plain(message.remark)}")
    if message.what not in ("ended", "test"):
        lines.append(f"To take it on: {acknowledge(message.alert_id)}")
    return "\n".join(lines)

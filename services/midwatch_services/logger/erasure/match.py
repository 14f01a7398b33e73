"""Which messages speak of runs that are to be erased. Pure."""

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from midwatch.contracts import subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.erasure import ErasedRun

RunKey = tuple[str, str]  # agent, run id
_WORD = rb"[A-Za-z0-9_-]"


class _Run(msgspec.Struct):
    run_id: str = ""


class _Peek(msgspec.Struct):
    data: _Run = msgspec.field(default_factory=_Run)


_peek = msgspec.json.Decoder(_Peek)


class Scope:
    """What an erasure reaches. It grows with the alerts that are met."""

    def __init__(
        self, runs: Iterable[ErasedRun], alerts: Collection[str] = (), references: Collection[str] = (),
        holds: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`references`: what the erasure was asked for by; `holds`: those that named it and are over."""
        some = list(runs)
        self.runs: set[RunKey] = {(run.agent, run.run_id) for run in some}
        self.tickets = {(run.agent, ticket) for run in some for ticket in run.tickets}
        self.cases = {subjects.case_id(*run) for run in self.runs}
        self.alerts = set(alerts)
        self.holds = set(holds)
        personal = {ticket for _, ticket in self.tickets} | set(references)
        self._personal = _pattern(personal)
        self._named = _pattern(personal | {run_id for _, run_id in self.runs})

    @property
    def agents(self) -> list[str]:
        """Whose runs they are."""
        return sorted({agent for agent, _ in self.runs})

    def has_run_event(self, agent: str, body: bytes) -> bool:
        """Whether a message of a run's subject is of one of the runs; one that cannot be read, whether it names one."""
        try:
            return (agent, _peek.decode(body).data.run_id) in self.runs
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self.names(body)

    def has_decision(self, subject: str, body: bytes) -> bool:
        """Whether what a service or a person said is about one of the runs, or about an alert or a case of theirs."""
        tokens = subject.split(".")
        if len(tokens) != 4 or tokens[1] == "erasure":
            return False
        data = _data(body)
        if data is None:
            return self.names(body)
        noun, agent = tokens[1], str(data.get("agent") or tokens[2])
        if noun == "alert":
            return self._alert(agent, data)
        if noun == "case":
            inner = data.get("case")
            return data.get("case_id") in self.cases or (isinstance(inner, dict) and inner.get("case_id") in self.cases)
        if noun == "digest" or tokens[3] == "summed":
            return self._digest(data)
        if noun == "hold":
            return data.get("hold_id") in self.holds
        if noun == "switch":
            key = str(data.get("key") or "")
            return (key.removeprefix(subjects.runs_key("")), data.get("target")) in self.runs
        return (agent, data.get("run_id")) in self.runs

    def _digest(self, data: dict[str, Any]) -> bool:
        named = data.get("runs")
        some = [one for one in named if isinstance(one, dict)] if isinstance(named, list) else []
        return any((one.get("agent"), one.get("run_id")) in self.runs for one in some)

    def _alert(self, agent: str, data: dict[str, Any]) -> bool:
        alert_id = str(data.get("alert_id") or "")
        if (agent, data.get("run_id")) in self.runs or (agent, data.get("ticket")) in self.tickets:
            self.alerts.add(alert_id)
        return alert_id in self.alerts

    def has_letter(self, letter: DeadLetter | None, raw: bytes) -> bool:
        """Whether a dead letter holds something of the runs: by what died, or by a name that stands in it. One that
        cannot be read is judged by its bytes."""
        if letter is None:
            return self.names(raw)
        tokens = letter.subject.split(".")
        if tokens[:2] == ["midwatch", "run"] and len(tokens) == 4 and self.has_run_event(tokens[2], letter.data):
            return True
        if tokens[:1] == ["midwatch"] and self.has_decision(letter.subject, letter.data):
            return True
        return self.names(letter.data) or self.names(letter.error.encode("utf-8", "replace"))

    def mentions(self, text: bytes) -> bool:
        """Whether a ticket or the reference stands in the text as a word. Ids of runs name nobody."""
        return self._personal is not None and self._personal.search(text) is not None

    def names(self, text: bytes) -> bool:
        """Whether a run id, a ticket or the reference stands in the text as a word."""
        return self._named is not None and self._named.search(text) is not None


def _pattern(names: Iterable[str]) -> "re.Pattern[bytes] | None":
    words = set[bytes]()
    for name in filter(None, names):
        words |= {name.encode("utf-8", "replace"), msgspec.json.encode(name)[1:-1], json.dumps(name)[1:-1].encode()}
    if not words:
        return None
    every = b"|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(b"(?<!" + _WORD + b")(?:" + every + b")(?!" + _WORD + b")")


def _data(body: bytes) -> dict[str, Any] | None:
    """What the message says, None where that cannot be read."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    data = found.get("data") if isinstance(found, dict) else None
    return data if isinstance(data, dict) else None


def chunks(runs: Iterable[ErasedRun], limit: int) -> list[list[ErasedRun]]:
    """The runs in groups whose JSON has at most `limit` bytes each, one run at least."""
    groups: list[list[ErasedRun]] = []
    size = limit
    for run in runs:
        length = len(msgspec.json.encode(run))
        if not groups or size + length > limit:
            groups.append([])
            size = 0
        groups[-1].append(run)
        size += length
    return groups

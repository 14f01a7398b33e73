"""Midwatch in memory, for the tests of your agent: no server, no disk, no thread.

    async with midwatch.testing.midwatch() as mw:
        desk = mw.agent("refund-desk", version="test", fallback=to_human)
        mw.halt("refund-desk", reason="drill")
        assert await answer(desk, "Where is my refund?") == "A person will answer you."
        assert [event.event for event in mw.events] == ["started", "handed_off", "finished"]

`with` instead of `async with` gives the twin of `midwatch.blocking`. Runs, records and halts are the real ones; only
the server is not there.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from . import blocking, client, offers
from .contracts import codec, control, subjects
from .contracts.budget import Reserve, Reserved
from .contracts.codec import RunEvent
from .contracts.control import BudgetRule, Card, Route, Stage, SwitchRecord, ToolRule
from .contracts.envelope import new_id, utc_now
from .contracts.governance import CaseOffered, CaseOpened
from .contracts.runs import EVENT_LIMIT, ToolKind
from .switch import FOREVER, Answer, LocalSwitch
from .till import Till


def card(agent: str, **fields: object) -> Card:
    """A scope card for tests; `fields` as in `midwatch.contracts.control.Card`."""
    return Card(**{"owner": "Tests", "purpose": "Is tested.", "can": ["Be tested"], **fields, "agent": agent})  # type: ignore[arg-type]


def tools(**kinds: ToolKind) -> dict[str, ToolRule]:
    """The tools of a card: `tools(look_up="read", refund="write")`."""
    return {name: ToolRule(kind=kind) for name, kind in kinds.items()}


class _Server:
    """Engine and server in one: what is written to the switch is applied when the write returns."""

    instance = "in-memory"
    event_limit = EVENT_LIMIT

    def __init__(self, cards: Iterable[Card] | None) -> None:
        self.closed = False
        self.events: list[RunEvent] = []
        self.accepted: list[str] = []
        self.till = Till(self._budget)
        self.takers: dict[str, offers.Heard] = {}
        self._cards = None if cards is None else {card.agent: card for card in cards}
        self._switches: dict[str, LocalSwitch] = {}
        self._values: dict[str, Answer] = {}
        self._routes: dict[str, Answer] = {}
        self._revision = 0
        self._claimed: set[str] = set()  # keys of the cases bucket
        self._lock = threading.RLock()

    def follow(self, agent: str, version: str) -> LocalSwitch:
        with self._lock:
            if agent not in self._switches:
                self._switches[agent] = self._new_switch(agent)
            return self._switches[agent]

    def append(self, subject: str, event_id: str, traceparent: bytes, body: bytes) -> None:
        if subject.startswith("midwatch.case."):
            self.accepted.append(codec.decode(subject, body).data.case_id)
        else:
            event = codec.decode_run(subject, body)
            self.events.append(event)
            with self._lock:
                self.till.hear(event)

    def claim(self, key: str, body: bytes, within: float) -> "Future[bool | None]":
        answer: Future[bool | None] = Future()
        with self._lock:
            answer.set_result(key not in self._claimed)
            self._claimed.add(key)
        return answer

    def reserve(self, agent: str, request: Reserve, go_on: bool) -> "Future[Reserved | None]":
        answer: Future[Reserved | None] = Future()
        with self._lock:
            answer.set_result(self.till.reserve(agent, request))
        return answer

    def commit(self, agent: str, id: str, cost: str) -> None:
        with self._lock:
            self.till.commit(agent, id, cost)

    def release(self, agent: str, ticket: str | None, run_id: str) -> None:
        """Nothing is held beyond what calls need."""

    def take_cases(self, agent: str, heard: offers.Heard) -> None:
        self.takers[agent] = heard

    def call_soon(self, work: Callable[[], object]) -> None:
        work()

    def write(self, key: str, target: str | None, record: SwitchRecord) -> int:
        """Writes a record to a key, or under `target` in a key that holds a map. The new revision."""
        with self._lock:
            value = control.encode(record)
            if target is not None:
                before = self._values.get(key)
                records = control.decode_map(before.value or b"{}") if before else {}
                value = control.encode((records or {}) | {target: record})
            self._revision += 1
            answer = self._values[key] = Answer(self._revision, self._revision, value)
            for switch in self._switches.values():
                if key in switch.keys:
                    switch.take(key, answer, FOREVER)
            return self._revision

    def route(self, agent: str, route: Route) -> int:
        """Writes an agent's route. The new revision."""
        with self._lock:
            self._revision += 1
            answer = self._routes[agent] = Answer(self._revision, self._revision, control.encode(route))
            if agent in self._switches:
                self._switches[agent].take_route(answer, FOREVER)
            return self._revision

    def close(self) -> None:
        for switch in self._switches.values():
            for run in switch.live:
                run.abandon()
        self.closed = True

    def _budget(self, agent: str) -> BudgetRule:
        switch = self._switches.get(agent)
        return switch.card.budget if switch and switch.card else BudgetRule()

    def _new_switch(self, agent: str) -> LocalSwitch:
        switch = LocalSwitch(agent)
        switch.confirm(FOREVER)
        running = SwitchRecord(state="running", by="midwatch.testing")
        for key in (subjects.FLEET_KEY, subjects.agent_key(agent)):
            if key not in self._values:
                self.write(key, None, running)
        for key in switch.keys:
            switch.take(key, self._values.get(key, Answer(0, 0, None)), FOREVER)
        switch.take_route(self._routes.get(agent, Answer(0, 0, None)), FOREVER)
        known = card(agent) if self._cards is None else self._cards.get(agent)
        switch.take_card(Answer(1, 1, control.encode(known)) if known else Answer(0, 0, None))
        return switch


class Controls:
    """What a test may do beside what the agent does."""

    _server: _Server

    @property
    def events(self) -> list[RunEvent]:
        """Every event recorded so far, in order."""
        return list(self._server.events)

    def halt(
        self, agent: str | None = None, *, tool: str | None = None, run: str | None = None, reason: str = "halted",
        by: str = "test", fallback: str | None = None,
    ) -> int:  # fmt: skip
        """Halts an agent, one tool or run of it, or the fleet if no agent is named. The epoch of the halt."""
        return self._write(agent, tool, run, SwitchRecord(state="halted", reason=reason, by=by, fallback=fallback))

    def resume(self, agent: str | None = None, *, tool: str | None = None, run: str | None = None) -> int:
        """Lifts what `halt` with the same words halted. The epoch."""
        return self._write(agent, tool, run, SwitchRecord(state="running", by="test"))

    def take_case(self, agent: str, run_id: str, *, offered_to: str | None = None) -> None:
        """From now on somebody else has the case of this run: its fallback is not called. With `offered_to`: the agent
        of that name, which was offered the case, does not get it."""
        key = subjects.offer_key(offered_to, agent, run_id) if offered_to else subjects.case_key(agent, run_id)
        self._server.claim(key, b"", 0)

    def leave_budgets(self, *, away: bool = True) -> None:
        """From now on nobody answers for budgets, as when cost-watchdog is down; `away=False`: somebody does again."""
        self._server.till.away = away

    def route(self, agent: str, stage: Stage, *, traffic: float = 1.0, salt: str = "") -> int:
        """Says how far an agent is let act: `shadow`, `canary` on the share `traffic` of its tickets, or `full`."""
        return self._server.route(agent, Route(stage=stage, traffic=traffic, salt=salt, by="test"))

    @property
    def accepted(self) -> list[str]:
        """Ids of the cases that were taken, in order."""
        return list(self._server.accepted)

    def offer(
        self, taker: str, *, input: Any, agent: str = "another", run_id: str | None = None, ticket: str | None = None,
        reason: str = "halted", events: Iterable[Any] = (), within: float = 5.0,
    ) -> str:  # fmt: skip
        """Offers agent `taker` the case that a run of `agent` left, as kill-switch does. The id of the case."""
        run_id = run_id or new_id()
        case = CaseOpened(
            case_id=subjects.case_id(agent, run_id), agent=agent, run_id=run_id, to=f"agent:{taker}", reason=reason,
            opened_by="midwatch.testing", ticket=ticket, input=input, events=list(events),
        )  # fmt: skip
        key = subjects.offer_key(taker, agent, run_id)
        if heard := self._server.takers.get(taker):
            heard(CaseOffered(taker=taker, offer_key=key, until=utc_now(), within=within, case=case))
        return case.case_id

    def _write(self, agent: str | None, tool: str | None, run: str | None, record: SwitchRecord) -> int:
        if agent is None:
            return self._server.write(subjects.FLEET_KEY, None, record)
        if tool is not None:
            return self._server.write(subjects.tools_key(agent), tool, record)
        if run is not None:
            return self._server.write(subjects.runs_key(agent), run, record)
        return self._server.write(subjects.agent_key(agent), None, record)


class InMemory(Controls, client.Midwatch):
    """The twin of `midwatch.Midwatch`."""

    def __init__(self, server: _Server) -> None:
        super().__init__(server)
        self._server = server


class BlockingInMemory(Controls, blocking.Midwatch):
    """The twin of `midwatch.blocking.Midwatch`."""

    def __init__(self, server: _Server) -> None:
        super().__init__(server)
        self._server = server


class Twin:
    """What `midwatch` gives: enter it with `async with`, or with `with` for threads."""

    def __init__(self, cards: Iterable[Card] | None) -> None:
        self._server = _Server(cards)

    async def __aenter__(self) -> InMemory:
        return InMemory(self._server)

    def __enter__(self) -> BlockingInMemory:
        return BlockingInMemory(self._server)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()


def midwatch(cards: Iterable[Card] | None = None) -> Twin:
    """Midwatch in memory. `cards`: the agents that have one; by default every agent has one."""
    return Twin(cards)

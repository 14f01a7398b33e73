"""What an event means for its run and its ticket: alerts, their end, halts. Pure.

Costs are summed as they come. A tool call brings no new state if the same call with the same result came before in its
run; the streak is the number of such calls since the last that did. It needs order: calls are judged along the run's
contiguous prefix by seq, and an event that comes after its place was passed is judged as it comes.
"""

from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from midwatch.contracts.runs import Resolution
from midwatch.runtime.pricing import Cost

from . import budgets, say
from .alerts import LOOP, Book, Cause, Condition, Decision, HaltAgent, HaltRun
from .policy import HALF, LIVE_LIMIT, MEMORY, WAITING_LIMIT, Policy
from .state import RunState, Subject, TicketState, Waiting


@dataclass(frozen=True, slots=True)
class Observed:
    """A run event, reduced to what is judged. `seq` is None where it has no place in the agent's order."""

    run: Subject
    event_id: str
    seq: int | None = None
    ticket: str | None = None
    cost: Cost | None = None
    tokens: int | None = None  # of a call of a model; None where it is none
    tool: str = ""
    pair: int | None = None  # digest of (call, result) of a tool call
    finished: Resolution | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The states afterwards, and what was decided; halts stand first."""

    run: RunState
    ticket: TicketState | None
    decisions: list[Decision]


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and since when a waiting event must have waited for its gap to close; None closes none."""

    now: datetime
    closes: datetime | None


def decide(run: RunState, ticket: TicketState | None, event: Observed, policy: Policy, clock: Clock) -> Outcome:
    """Judges one event. `ticket` is the state of `ticket_of(run, event)`, None where there is none."""
    if run.ticket is None and event.ticket is not None:
        run = replace(run, ticket=event.ticket)
        if ticket is not None:
            ticket = replace(ticket, spent=ticket.spent.joined(run.spent))
    if event.tokens is not None:
        run = replace(run, steps=run.steps + 1, tokens=run.tokens + event.tokens)
    if event.cost is not None:
        run = replace(run, spent=run.spent.plus(event.cost))
        if ticket is not None:
            ticket = replace(ticket, spent=ticket.spent.plus(event.cost))
    if event.finished is not None:
        run = replace(run, finished=True)
    run, steps = _in_order(run, event, clock)
    cause = Cause(event.run, run.ticket, event.event_id, event.seq)
    return _judge(run, ticket, steps, policy, cause, costed=event.cost is not None)


def tick(run: RunState, ticket: TicketState | None, subject: Subject, policy: Policy, clock: Clock) -> Outcome:
    """Judges a run without an event: its gaps close with time, and its card may have changed."""
    run, steps = _in_order(run, None, clock)
    return _judge(run, ticket, steps, policy, Cause(subject, run.ticket), costed=False)


def ticket_of(run: RunState, event: Observed) -> str | None:
    """The ticket that a run belongs to: the first that it named."""
    return run.ticket or event.ticket


def _judge(
    run: RunState, ticket: TicketState | None, steps: list[Waiting], policy: Policy, cause: Cause, *, costed: bool
) -> Outcome:
    halts: dict[str, HaltRun | HaltAgent] = {}
    said: list[Decision] = []
    calls = [step for step in steps if step.pair is not None]
    if calls or run.alerts or budgets.near(run, policy):
        book = Book(cause.run, run.alerts, run.raised)
        run = _loops(run, calls, policy, book)
        for condition in budgets.of_run(book, run, policy):
            if book.met(condition, cause, again=costed) and condition.halts:
                book.halt(cause.run.name, condition)
                if policy.run.action == "halt_agent":
                    book.halt_agent(condition)
        if run.finished:
            book.close("the run has finished")
        if book.alerts is not run.alerts:
            run = replace(run, alerts=book.alerts, raised=book.raised)
        halts, said = book.halts, book.said
    if ticket is not None:
        ticket, of_ticket = _ticket(ticket, run, policy, cause, costed=costed)
        if of_ticket is not None:
            halts = {**of_ticket.halts, **halts}  # a run that both rules halt is halted by its own
            said = said + of_ticket.said
    return Outcome(run, ticket, [*halts.values(), *said])


def _ticket(
    ticket: TicketState, run: RunState, policy: Policy, cause: Cause, *, costed: bool
) -> tuple[TicketState, Book | None]:
    """The ticket after an event of one of its runs; the book is None where there was nothing to judge."""
    assert cause.ticket is not None
    run_id, live = cause.run.name, ticket.live
    if run.finished and run_id in live:
        live = {name: halted for name, halted in live.items() if name != run_id}
    elif not run.finished and run_id not in live and len(live) < LIVE_LIMIT:
        live = {**live, run_id: False}
    if not ticket.alerts and ticket.spent.amount < policy.ticket.amount * HALF:
        return (ticket if live is ticket.live else replace(ticket, live=live)), None
    book = Book(Subject(cause.run.mode, cause.run.agent, cause.ticket), ticket.alerts, ticket.raised)
    moving = [name for name, halted in live.items() if not halted]
    if not run.finished and run_id not in live:
        moving.append(run_id)
    condition = budgets.of_ticket(book, ticket.spent, policy.ticket, moving=bool(moving))
    if condition is not None:
        raised = book.met(condition, cause, again=costed, reopens=not run.finished)
        if raised and condition.halts == "agent":
            book.halt_agent(condition)
    if condition is not None and condition.halts:
        for name in moving:
            book.halt(name, condition)
        live = dict.fromkeys(live, True)
    elif any(live.values()) and (condition is None or condition.level != "halt"):
        live = dict.fromkeys(live, False)  # the budget was raised: once that is spent they are halted again
    if not live:
        book.close("every run of the ticket has finished")
    return replace(ticket, live=live, alerts=book.alerts, raised=book.raised), book


def _loops(run: RunState, calls: list[Waiting], policy: Policy, book: Book) -> RunState:
    if not calls:
        return run
    seen, older, streak = set(run.seen), run.older, run.streak
    for call in calls:
        assert call.pair is not None
        new = call.pair not in seen and call.pair not in older
        seen.add(call.pair)
        if len(seen) >= MEMORY:
            seen, older = set(), frozenset(seen)
        if new:
            streak = 0
            for level in ("warn", "halt"):
                book.end(f"{LOOP}.{level}", "a tool call brought something new")
            continue
        streak += 1
        halts = streak >= policy.halt_at
        if halts or streak >= policy.alert_at:
            limit = policy.halt_at if halts else policy.alert_at
            title = say.looping(book.owner, call.tool, streak)
            condition = Condition(LOOP, "halt" if halts else "warn", title, streak, limit, "run" if halts else None)
            cause = Cause(book.owner, run.ticket, call.event_id, call.seq)
            if book.met(condition, cause, again=True) and halts:
                book.halt(book.owner.name, condition)
    return replace(run, seen=frozenset(seen), older=older, streak=streak)


def _in_order(run: RunState, event: Observed | None, clock: Clock) -> tuple[RunState, list[Waiting]]:
    """The events whose turn has come, in order; the others wait in the state."""
    waiting = run.waiting
    if event is not None and event.seq is not None:
        item = Waiting(event.seq, event.event_id, clock.now.timestamp(), event.tool, event.pair)
        if event.seq < run.next_seq:
            return run, [item]
        if event.seq == run.next_seq and not waiting:
            return replace(run, next_seq=event.seq + 1), [item]
        waiting = tuple(sorted((*waiting, item)))
    if not waiting:
        return run, []
    passed = -1
    if clock.closes is not None:
        closes = clock.closes.timestamp()
        passed = max((item.seq for item in waiting if item.arrived <= closes), default=-1)
    if len(waiting) > WAITING_LIMIT:
        passed = max(passed, waiting[0].seq)
    next_seq, ready = run.next_seq, 0
    for item in waiting:
        if item.seq > max(next_seq, passed):
            break
        next_seq, ready = max(next_seq, item.seq + 1), ready + 1
    return replace(run, next_seq=next_seq, waiting=waiting[ready:]), list(waiting[:ready])

"""What an event means for its run and its ticket: alerts, their end, halts. Pure.

Costs are summed as they come. The rules need order: they judge along the run's contiguous prefix by seq, and an event
that comes after its place was passed is judged as it comes.
"""

from dataclasses import dataclass
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from midwatch.contracts.runs import Resolution
from midwatch.runtime.pricing import Cost

from . import budgets
from .alerts import Book, Cause, Decision
from .policy import HALF, LIVE_LIMIT, WAITING_LIMIT, Policy
from .rules import judge, stalled
from .rules.memory import NOTHING_USUAL, Facts, Usual
from .state import RunState, Subject, TicketState, Waiting


class Observed(Struct, frozen=True):
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
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The states afterwards, and what was decided; halts stand first."""

    run: RunState
    ticket: TicketState | None
    decisions: list[Decision]
    usual: Usual = NOTHING_USUAL


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and since when a waiting event must have waited for its gap to close; None closes none. `silence`:
    whether that nothing was heard of a run means anything."""

    now: datetime
    closes: datetime | None
    silence: bool = False


def decide(
    run: RunState, ticket: TicketState | None, event: Observed, policy: Policy, clock: Clock,
    usual: Usual = NOTHING_USUAL,
) -> Outcome:  # fmt: skip
    """Judges one event. `ticket` is the state of `ticket_of(run, event)`, None where there is none; `usual` is that of
    the run's agent."""
    if run.ticket is None and event.ticket is not None:
        run = replace(run, ticket=event.ticket)
        if ticket is not None:
            joined, hand_offs = ticket.spent.joined(run.spent), ticket.hand_offs + run.loops.hand_offs
            ticket = replace(ticket, spent=joined, hand_offs=hand_offs)
    if event.tokens is not None:
        run = replace(run, steps=run.steps + 1, tokens=run.tokens + event.tokens)
    if event.cost is not None:
        run = replace(run, spent=run.spent.plus(event.cost))
        if ticket is not None:
            ticket = replace(ticket, spent=ticket.spent.plus(event.cost))
    if event.finished is not None:
        # A run that was stopped says nothing of how fast the agent's runs are.
        learnt = run.loops.learnt or event.finished in ("halted", "fell_back")
        run = replace(run, finished=True, loops=replace(run.loops, learnt=learnt))
    run, steps = _in_order(run, event, clock)
    cause = Cause(event.run, run.ticket, event.event_id, event.seq)
    return _judge(run, ticket, steps, policy, cause, clock, usual, costed=event.cost is not None)


def tick(
    run: RunState, ticket: TicketState | None, subject: Subject, policy: Policy, clock: Clock,
    usual: Usual = NOTHING_USUAL,
) -> Outcome:  # fmt: skip
    """Judges a run without an event: its gaps close with time, it may have stalled, its card may have changed."""
    run, steps = _in_order(run, None, clock)
    return _judge(run, ticket, steps, policy, Cause(subject, run.ticket), clock, usual, costed=False)


def forget(run: RunState, subject: Subject) -> list[Decision]:
    """Ends what is open of a run of which nothing more is expected."""
    return close(run, subject, "nothing was heard of the run any more")


def close(state: RunState | TicketState, subject: Subject, why: str) -> list[Decision]:
    """Ends what is open of a run or a ticket."""
    book = Book(subject, state.alerts, state.raised)
    book.close(why)
    return book.said


def ticket_of(run: RunState, event: Observed) -> str | None:
    """The ticket that a run belongs to: the first that it named."""
    return run.ticket or event.ticket


def _judge(
    run: RunState, ticket: TicketState | None, steps: list[Waiting], policy: Policy, cause: Cause, clock: Clock,
    usual: Usual, *, costed: bool,
) -> Outcome:  # fmt: skip
    book = Book(cause.run, run.alerts, run.raised)
    handed_before = run.loops.hand_offs if ticket is None else ticket.hand_offs
    run, handed = judge.follow(run, steps, policy, book, usual, handed_before)
    if ticket is not None and handed:
        ticket = replace(ticket, hand_offs=ticket.hand_offs + handed)
    run = _without_steps(run, cause, policy, book, clock, usual)
    run, usual = judge.learn(run, usual)
    if book.alerts or budgets.near(run, policy):
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
    return Outcome(run, ticket, [*halts.values(), *said], usual)


def _without_steps(run: RunState, cause: Cause, policy: Policy, book: Book, clock: Clock, usual: Usual) -> RunState:
    """What does not depend on the order of events: silence, and a card that may have changed."""
    after, now, finished = policy.loops.stalled, clock.now.timestamp(), run.finished
    if cause.event_id is not None:
        loops = stalled.heard(run.loops, book, after, now, finished=finished)
    else:
        judge.anew(run, policy, book, usual)
        loops = stalled.judge_anew(run.loops, book, after, now, run.ticket, finished=finished, counts=clock.silence)
    return run if loops is run.loops else replace(run, loops=loops)


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


def _in_order(run: RunState, event: Observed | None, clock: Clock) -> tuple[RunState, list[Waiting]]:
    """The events whose turn has come, in order; the others wait in the state."""
    waiting = run.waiting
    if event is not None and event.seq is not None:
        item = Waiting(event.seq, event.event_id, clock.now.timestamp(), event.tool, event.pair, event.facts)
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

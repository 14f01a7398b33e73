"""`midwatch reviews next`, `judge` and `release`: one run at a time, for a person and for scripts."""

from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import story
from .bus import connected, run, unreached, user
from .output import NOT_CONFIRMED, OK, JsonOption, clean, console, count_of, emit_json, fail
from .runs import read_log, read_story

if TYPE_CHECKING:
    from midwatch.contracts.claims import Taken
    from midwatch.contracts.reviews import Verdict
    from midwatch_services.reviewer_sampler.judging.desk import Desk

STILL = timedelta(minutes=10)  # since its last event, for which a run without an end is taken to go on
By = Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")]
OfAgent = Annotated[str | None, typer.Option("--agent", help="Only this agent's runs.")]
OwnRun = Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")]
Whose = Annotated[str | None, typer.Option("--agent", help="Whose run, where two agents have one of this id.")]


def register(reviews: typer.Typer) -> None:
    """Adds the commands to the group."""
    reviews.command("next")(next_)
    reviews.command("judge")(judge)
    reviews.command("release")(release)


@dataclass
class Told:
    """What the log has of a run: its row, its events, and the lines of its story. Empty where it cannot be read."""

    run: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def goes_on(self, now: datetime) -> bool:
        """Whether it has no end yet and was heard of just now: there is nothing to judge yet."""
        last = self.run.get("last_event_at")
        open_ = bool(self.run) and not self.run["resolution"]
        return open_ and last is not None and now - datetime.fromisoformat(last) < STILL


def tell(held: "Taken", *, full: bool = True) -> Told:
    """The story that `midwatch show` prints. Where the log cannot be read, a line on standard error says so."""
    with suppress(typer.Exit):
        found, events, beside = read_log(lambda conn: read_story(conn, held.run_id, held.agent))
        if found:
            return Told(found[0], events, list(story.tell(found[0], events, beside, full=full)))
    return Told()


async def take_ended(desk: "Desk", agent: str | None, skip: Sequence[str] = ()) -> "tuple[Taken, Told]":
    """The next run that is over; those that still go on are left for later. Raises MidwatchError."""
    passed = list(skip)
    while True:
        held = await desk.take(agent=agent, skip=passed)
        told = tell(held) if held.run_id else Told()
        if not told.goes_on(datetime.now(UTC)):
            return held, told
        await desk.release(held)
        passed.append(held.run_id)


def introduce(held: "Taken", by: str) -> None:
    """Until when it is held, why it is read, and what there is left to do."""
    until = f"{held.until.astimezone():%H:%M}" if held.until else "?"
    minutes = "" if held.minutes_left is None else f"; {held.minutes_left:g} minutes left today"
    console.print(
        f"Held for {clean(by)} until {until}; {count_of(held.left, 'more run')} to judge{minutes}", soft_wrap=True
    )
    if causes := causes_of(held):
        console.print(f"Read because of: {clean(', '.join(causes))}", soft_wrap=True)


def causes_of(held: "Taken") -> list[str]:
    """Why the run is read though it may not have been drawn; nothing where the queue cannot be read here."""
    from midwatch_services.reviewer_sampler import store

    from .reviews_read import causes, read_queue

    with suppress(typer.Exit):
        rows = read_queue(lambda conn: store.of_run(conn, held.agent, held.run_id), quiet=True)
        return [cause for row in rows for cause in causes(row)]
    return []


def next_(agent: OfAgent = None, by: By = None, as_json: Annotated[bool, JsonOption] = False) -> None:
    """Take the next run to judge and tell its story. It is held for you for a while; what others said is not shown.

    Exit code 3: nothing waits for you.

    Example: midwatch reviews next --agent refund-desk
    """
    who = by or user()

    async def work(desk: "Desk") -> int:
        held, told = await take_ended(desk, agent)
        if as_json:
            emit_json([{"held": held, "causes": causes_of(held) if held.run_id else [], "run": told.run,
                        "event_list": told.events}])  # fmt: skip
        elif held.run_id:
            introduce(held, who)
            for line in told.lines or [f"Run {clean(held.run_id)} of {clean(held.agent)}, ticket {clean(held.ticket)}"]:
                console.print(line, soft_wrap=True)
            console.print(f"Then: midwatch reviews judge {clean(held.run_id)} pass, fail or unsure", soft_wrap=True)
        else:
            console.print(clean(held.reason), soft_wrap=True)
        return OK if held.run_id else NOT_CONFIRMED

    at_desk(who, work, "No run was taken.")


def judge(
    run_id: OwnRun,
    verdict: Annotated[Literal["pass", "fail", "unsure"], typer.Argument(help="What it was worth.")],
    reason: Annotated[list[str] | None, typer.Option(help="Of a fail; several may be given.")] = None,
    correct: Annotated[str, typer.Option(help="What the agent should have answered.")] = "",
    note: Annotated[str, typer.Option(help="For those who mend the agent.")] = "",
    agent: Whose = None,
    by: By = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say what a run was worth. Exit code 3: it is kept, and may not count, because nobody wants another judge of it.

    Example: midwatch reviews judge run-8c1f fail --reason wrong_fact --correct "The refund takes five days."
    """
    who = by or user()

    async def work(desk: "Desk") -> int:
        from midwatch.contracts.claims import Taken
        from midwatch_services.reviewer_sampler.judging.desk import NobodyAnswers

        try:
            held = await desk.take(run_id=run_id, agent=agent)
        except NobodyAnswers as error:
            held = Taken(reason=str(error))
        whose = held.agent or agent or owner(run_id)
        data = said(held, run_id, whose, verdict, who, reasons=reason or (), corrected=correct, note=note)
        await desk.judge(data)
        if as_json:
            emit_json([{"judged": data, "held": bool(held.run_id), "reason": held.reason}])
        else:
            console.print(f"{clean(run_id)}: {verdict}, by {clean(who)}", soft_wrap=True)
            for line in remarks(held, reason or ()):
                console.print(f"  {clean(line)}", soft_wrap=True)
        return OK if held.run_id else NOT_CONFIRMED

    at_desk(who, work, "Nothing was judged.")


def said(
    held: "Taken", run_id: str, agent: str, verdict: "Verdict", by: str, *, reasons: Sequence[str] = (),
    corrected: str = "", note: str = "", seconds: float | None = None,
) -> Any:  # fmt: skip
    """The judgement as it is published."""
    from midwatch.contracts.reviews import ReviewJudged

    return ReviewJudged(
        run_id=run_id, agent=agent, verdict=verdict, by=by, note=note, ticket=held.ticket, mode=held.mode,
        claim=held.claim if held.run_id else "", reasons=list(reasons), corrected=corrected, seconds=seconds,
    )  # fmt: skip


def remarks(held: "Taken", reasons: Sequence[str]) -> list[str]:
    """What a reviewer is to know of a judgement just made."""
    unknown = [reason for reason in reasons if reason not in held.reasons] if held.run_id else []
    lines = [f"It is kept, and may not count: {held.reason}"] if not held.run_id else []
    if unknown:
        listed = ", ".join(held.reasons)
        lines.append(f"{', '.join(unknown)}: not among the reasons of {held.agent} ({listed}); kept as other")
    return lines


def owner(run_id: str) -> str:
    """Whose run it is, by the log."""
    from midwatch_services.logger import store

    found = {one["agent"] for one in read_log(lambda conn: store.read_runs(conn, run_id=run_id))}
    if len(found) != 1:
        fail(f"{'several agents have' if found else 'nobody has'} a run {run_id!r} in the log: say whose with --agent")
    return str(found.pop())


def release(run_id: OwnRun, agent: Whose = None, by: By = None) -> None:
    """Give a run back that you hold and will not judge now.

    Example: midwatch reviews release run-8c1f
    """
    who = by or user()

    async def work(desk: "Desk") -> int:
        held = await desk.take(run_id=run_id, agent=agent)
        if not held.run_id:
            fail(held.reason)
        await desk.release(held)
        console.print(f"{clean(run_id)}: released")
        return OK

    at_desk(who, work, "Nothing was released.")


def at_desk(by: str, work: Any, nothing_happened: str) -> None:
    """Runs `work` with a connection to NATS, and says in one line what went wrong."""
    run(_at_desk(by, work, nothing_happened))


async def _at_desk(by: str, work: Any, nothing_happened: str) -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.reviewer_sampler.judging.desk import INBOX, Desk

    url = Settings().url
    try:
        async with connected(url, INBOX) as nc:
            begun: Coroutine[Any, Any, int] = work(Desk(nc, by))
            return await begun
    except MidwatchError as error:
        fail(str(error))
    except (OSError, NatsError, TimeoutError) as error:
        return unreached(error, url, nothing_happened)

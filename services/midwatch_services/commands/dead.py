"""`midwatch dead`: what a service could not process; looked at, published again, or dropped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from . import dead_output
from .dead_output import Result
from .output import NOT_CONFIRMED, OK, USAGE, JsonOption, confirm, emit_json, emit_table, fail
from .runs import start_of
from .switch_output import count, say

if TYPE_CHECKING:
    from midwatch_services.dead_letters.decide import Original, Wanted
    from midwatch_services.dead_letters.shelf import Shelf

T = TypeVar("T")
_COLUMNS = ("number", "when", "service", "reason", "subject", "attempts", "error")

Numbers = Annotated[
    list[int] | None,
    typer.Argument(min=1, help="The letters, as `midwatch dead list` numbers them.", metavar="NUMBER…"),
]
Service = Annotated[str | None, typer.Option("--service", help="Only letters of this service.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only letters with this reason: failed, malformed …")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only messages of this agent.")]
Since = Annotated[str | None, typer.Option("--since", help="A span (15m, 2h, 7d) or a time (2026-11-22T02:00).")]
Every = Annotated[bool, typer.Option("--all", help="All that lie there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    dead = typer.Typer(help="Dead letters: what a service could not process.", no_args_is_help=True)
    dead.callback()(_group)
    dead.command("list")(list_letters)
    dead.command("show")(show)
    dead.command("retry")(retry)
    dead.command("drop")(drop)
    app.add_typer(dead, name="dead")


def _group() -> None:
    """Dead letters: what a service could not process."""


def list_letters(
    service: Service = None,
    reason: Reason = None,
    agent: Agent = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List dead letters, the newest first: one line a message, with every service that could not process it.

    Its number is that of its newest letter, and names all of them to `show`, `retry` and `drop`.

    Example: midwatch dead list --service logger --since 2h
    """
    from midwatch_services.dead_letters.decide import picked

    wanted = _wanted(service, reason, agent, since)
    found = picked(_do(_originals), wanted)
    if as_json:
        emit_json(dead_output.as_row(one) for one in found[:limit])
        return
    rows = [dict(zip(_COLUMNS, dead_output.line(one), strict=True)) for one in found[:limit]]
    emit_table(_COLUMNS, rows, empty="No dead letters." if wanted == _wanted() else "No dead letter matches.")
    if len(found) > limit:
        say(f"{len(found) - limit:,} more: --limit {len(found)}")


def show(
    number: Annotated[int, typer.Argument(min=1, help="The letter, as `midwatch dead list` numbers it.")],
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell everything of one letter: what died, where, why, its headers, its body, and whether `retry` would take it.

    Example: midwatch dead show 17
    """
    from midwatch.contracts.envelope import utc_now
    from midwatch_services.dead_letters.decide import Original, obstacle

    async def work(shelf: "Shelf") -> Result:
        listed, written, raw = await shelf.body(number)
        against = obstacle(Original((listed,)), utc_now(), await shelf.remembered())
        return Result(listed, written, raw, against)

    found = _do(work)
    if as_json:
        emit_json([dead_output.whole(found)])
        return
    for line in dead_output.tell(found, full=full):
        say(line)


def retry(
    numbers: Numbers = None,
    service: Service = None,
    reason: Reason = None,
    agent: Agent = None,
    since: Since = None,
    every: Every = False,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Also what will be refused again, or is too old.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Publish what died again, as it was, and delete its letters once the server has it.

    Every service reads it again; those that had applied it recognise it and do nothing. A message that was published
    less than two minutes ago is NOT delivered again by the server: its letter stays, retry it later. Exit code 0 if
    all were retried, 3 if some were not.

    Example: midwatch dead retry --service logger --reason failed
    """
    from midwatch.contracts.envelope import utc_now
    from midwatch_services.dead_letters.decide import in_order, obstacle

    async def read(shelf: "Shelf") -> "tuple[list[Original], dead_output.Refused]":
        found, now, remembered = await _picked(shelf, numbers, wanted), utc_now(), await shelf.remembered()
        against = [(one, obstacle(one, now, remembered)) for one in in_order(found)]
        stays = [(one, why) for one, why in against if why is not None and not (force and why.force)]
        return [one for one, why in against if why is None or (force and why.force)], stays

    wanted = _asked(numbers, service, reason, agent, since, every)
    may, refused = _do(read)
    if not as_json:
        for line in dead_output.refusals(refused):
            say(line)
    if may:
        confirm(f"Publish {dead_output.told(may)} again?", yes, "nothing was changed")
    done = _do(lambda shelf: _retry(shelf, may)) if may else []
    if as_json:
        emit_json(dead_output.outcomes(done, refused))
    else:
        for line in dead_output.summary(done, refused):
            say(line)
    if refused or any(outcome.fate != "retried" for _, outcome in done):
        raise typer.Exit(NOT_CONFIRMED)
    raise typer.Exit(OK)


def drop(
    numbers: Numbers = None,
    service: Service = None,
    reason: Reason = None,
    agent: Agent = None,
    since: Since = None,
    every: Every = False,
    yes: Yes = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Delete dead letters for good: those of every service that could not process the message.

    Example: midwatch dead drop --service logger --reason malformed
    """
    wanted = _asked(numbers, service, reason, agent, since, every)
    found = _do(lambda shelf: _picked(shelf, numbers, wanted))
    if found:
        confirm(f"Delete {dead_output.told(found)} for good?", yes, "nothing was changed")
    dropped = _do(lambda shelf: _drop(shelf, found)) if found else []
    if as_json:
        emit_json([{"dropped": len(dropped), "numbers": dropped}])
    else:
        say(f"{count(len(dropped), 'letter')} dropped")


async def _retry(shelf: "Shelf", found: "Sequence[Original]") -> dead_output.Done:
    """One after the other, as their streams had them; the first that is not answered ends it."""
    from midwatch.errors import MidwatchError
    from midwatch_services.dead_letters.shelf import NotAllowed, Outcome

    done: dead_output.Done = []
    with dead_output.progress("retrying", len(found)) as advance:
        for place, one in enumerate(found):
            try:
                done.append((one, await shelf.retry(one)))
            except NotAllowed:
                if not done:
                    raise
                done += [(left, Outcome("failed", str(NotAllowed()))) for left in found[place:]]
                break
            except MidwatchError as error:
                done.append((one, Outcome("failed", f"{error}. Its letter stays; to retry it again is harmless")))
                done += [(left, Outcome("failed", "it was not tried")) for left in found[place + 1 :]]
                break
            advance()
    return done


async def _drop(shelf: "Shelf", found: "Sequence[Original]") -> list[int]:
    from midwatch.errors import MidwatchError, Temporary

    numbers = sorted(number for one in found for number in one.numbers)
    dropped: list[int] = []
    with dead_output.progress("dropping", len(numbers)) as advance:
        for number in numbers:
            try:
                if await shelf.drop(number):
                    dropped.append(number)
            except MidwatchError as error:
                raise Temporary(f"{count(len(dropped), 'letter')} dropped. {error}") from error
            advance()
    return dropped


def _wanted(
    service: str | None = None, reason: str | None = None, agent: str | None = None, since: str | None = None
) -> "Wanted":
    from midwatch_services.dead_letters.decide import Wanted

    start = start_of(since)
    return Wanted(service, reason, agent, datetime.fromisoformat(start) if start else None)


def _asked(
    numbers: list[int] | None,
    service: str | None,
    reason: str | None,
    agent: str | None,
    since: str | None,
    every: bool,
) -> "Wanted":
    """The filters of a command that changes something: it is told which letters, in one way."""
    ways = bool(numbers) + any(one is not None for one in (service, reason, agent, since)) + every
    if ways != 1:
        fail("say which letters: their numbers, or filters (--service, --reason, --agent, --since), or --all", USAGE)
    return _wanted(service, reason, agent, since)


async def _originals(shelf: "Shelf") -> "list[Original]":
    from midwatch_services.dead_letters.decide import originals

    return originals(await shelf.letters())


async def _picked(shelf: "Shelf", numbers: list[int] | None, wanted: "Wanted") -> "list[Original]":
    """The originals that are meant. Raises NoLetter for a number that is none."""
    from midwatch_services.dead_letters.decide import picked
    from midwatch_services.dead_letters.shelf import NoLetter

    found = await _originals(shelf)
    if not numbers:
        return picked(found, wanted)
    owners = {number: one for one in found for number in one.numbers}
    if unknown := [number for number in numbers if number not in owners]:
        raise NoLetter(number=unknown[0])
    return list({owners[number].numbers[0]: owners[number] for number in numbers}.values())


def _do(work: "Callable[[Shelf], Awaitable[T]]") -> "T":
    """What `work` returns; ends the command with one line where it cannot be done."""
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.dead_letters.shelf import open_shelf

    async def run() -> "T":
        async with open_shelf(Settings().url) as shelf:
            return await work(shelf)

    try:
        return asyncio.run(run())
    except MidwatchError as error:
        fail(str(error))

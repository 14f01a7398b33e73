"""How `midwatch dead` prints. All that agents wrote passes `output.clean`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .output import clean
from .switch_output import count

if TYPE_CHECKING:
    from midwatch.contracts.control import DeadLetter
    from midwatch_services.dead_letters.decide import Letter, Obstacle, Original
    from midwatch_services.dead_letters.shelf import Outcome

Done = list[tuple["Original", "Outcome"]]
Refused = Sequence[tuple["Original", "Obstacle"]]
_CELL = 100  # characters of an error in the table
_BODY = 4_000  # characters of a body, unless all of it is asked for
_FEW = 10  # numbers named in one line
_MANY = 20  # letters from which on a bar shows how far it is


class Result(NamedTuple):
    """One letter: as it is listed, as it was written (None where it cannot be read), its bytes, what stands against
    publishing it again."""

    listed: "Letter"
    written: "DeadLetter | None"
    raw: bytes
    against: "Obstacle | None"


def line(one: "Original") -> tuple[Any, ...]:
    """An original as one line of the table."""
    letter, services = one.newest, ", ".join(one.services)
    attempts = max(each.attempts for each in one.letters)
    return (
        letter.number, f"{letter.at:%Y-%m-%d %H:%M:%S}", services, ", ".join(one.reasons), _short(letter.subject),
        attempts, _short(letter.error),
    )  # fmt: skip


def as_row(one: "Original") -> dict[str, Any]:
    """An original for scripts."""
    letter = one.newest
    return {
        "number": letter.number, "numbers": one.numbers, "at": letter.at, "services": one.services,
        "reasons": one.reasons, "subject": letter.subject, "stream": letter.stream, "stream_seq": letter.stream_seq,
        "attempts": max(each.attempts for each in one.letters), "error": letter.error,
    }  # fmt: skip


def tell(found: Result, *, full: bool) -> Iterator[str]:
    """The lines of one letter, ready to be printed."""
    listed, written = found.listed, found.written
    body = found.raw if written is None else written.data
    yield f"Dead letter [bold]{listed.number}[/] of [bold]{clean(listed.service)}[/], {listed.at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"  reason    {clean(listed.reason)}, after {count(listed.attempts, 'attempt')}"
    yield f"  error     {clean(_cut(listed.error if written is None else written.error, full))}"
    if written is not None:
        place = f"{written.stream} {written.stream_seq}" if written.stream else "no stream"
        yield f"  subject   {clean(written.subject)} ({clean(place)})"
        for name, value in written.headers.items():
            yield f"  header    {clean(name)}: {clean(_cut(value, full))}"
    if found.against is None:
        yield f"  retry     `midwatch dead retry {listed.number}` publishes it again"
    else:
        yield f"  retry     not as it is: {clean(_refused_by(found.against))}"
    yield f"  body      {len(body):,} bytes{', only the beginning of it' if listed.cut else ''}"
    for row in _cut(_text(body), full).split("\n"):
        yield f"    {clean(row)}"


def whole(found: Result) -> dict[str, Any]:
    """One letter for scripts: its body as JSON where it is, else as text, and as it was in base64."""
    listed, written = found.listed, found.written
    body = found.raw if written is None else written.data
    fields = {"at": listed.at, "data": body} if written is None else msgspec.structs.asdict(written)
    try:
        value = msgspec.json.decode(body)
        msgspec.json.encode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = _text(body)
    told = {"service": listed.service, "reason": listed.reason, "error": listed.error} | fields
    against = None if found.against is None else _refused_by(found.against)
    return {"number": listed.number, **told, "cut": listed.cut, "body": value, "retry_refused": against}


def told(found: "Sequence[Original]") -> str:
    """How much that is, and whose; not clean yet."""
    letters = sum(len(one.letters) for one in found)
    services = sorted({service for one in found for service in one.services})
    return f"{count(len(found), 'message')} ({count(letters, 'letter')} of {', '.join(services)})"


def refusals(refused: Refused) -> Iterator[str]:
    """What is not published again and why, one line a reason, ready to be printed."""
    groups: dict[str, tuple[list[int], Obstacle]] = {}
    for one, against in refused:
        groups.setdefault(against.why, ([], against))[0].append(one.newest.number)
    for numbers, against in groups.values():
        yield clean(f"not retried: {_numbers(numbers)}: {_refused_by(against, many=len(numbers) > 1)}")


def summary(done: Done, refused: Refused) -> Iterator[str]:
    """What became of it, ready to be printed."""
    fates: dict[tuple[str, str], list[int]] = {}
    for one, outcome in done:
        if outcome.fate != "retried":
            fates.setdefault((outcome.fate, outcome.why), []).append(one.newest.number)
    for (fate, why), numbers in fates.items():
        yield clean(f"not retried: {_numbers(numbers)}: {_DUPLICATE if fate == 'duplicate' else why}")
    retried = [outcome for _, outcome in done if outcome.fate == "retried"]
    deleted = sum(outcome.deleted for outcome in retried)
    yield (
        f"{count(len(retried), 'message')} retried, {count(deleted, 'letter')} deleted; "
        f"{len(done) + len(refused) - len(retried):,} not retried"
    )


def outcomes(done: Done, refused: Refused) -> Iterator[dict[str, Any]]:
    """What became of it, for scripts: one object a message."""
    for one, against in refused:
        yield {**as_row(one), "outcome": "refused", "why": _refused_by(against)}
    for one, outcome in done:
        why = _DUPLICATE if outcome.fate == "duplicate" else outcome.why
        yield {**as_row(one), "outcome": outcome.fate, "why": why}


_DUPLICATE = (
    "the server had it less than two minutes ago and has NOT delivered it again: the letter stays, "
    "retry it in two minutes"
)


@contextmanager
def progress(what: str, total: int) -> "Iterator[Callable[[], None]]":
    """A bar on standard error while much is done, on a terminal alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = total < _MANY or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _refused_by(against: "Obstacle", *, many: bool = False) -> str:
    mend = against.mend
    if many:  # the mend of one names its own number
        mend = "`midwatch dead show NUMBER` says what to do with each"
    return f"{against.why}: {mend}"


def _numbers(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _FEW:,} more" if len(numbers) > _FEW else ""
    return ", ".join(map(str, numbers[:_FEW])) + more


def _short(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[:_CELL]}…"


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= _BODY else f"{text[:_BODY]}… ({len(text):,} characters; --full shows all)"


def _text(body: bytes) -> str:
    """A body as text: JSON with its lines, anything else with what cannot be printed escaped."""
    try:
        text = msgspec.json.format(body, indent=2).decode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)

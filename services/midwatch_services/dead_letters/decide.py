"""Which dead letters belong together, and which may be published again. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from midwatch.contracts import subjects

REFUSED_AGAIN = ("malformed", "oversized", "bad_subject", "wrong_agent", "unknown_version")
UNREADABLE = "unreadable"  # our own word, for what lies in the stream and is no dead letter
_EVENTS = (subjects.RUNS, subjects.GOVERNANCE)  # what happened; all else is what was true then
_SERVERS = "nats-"  # headers that tell the server how to store a message


@dataclass(frozen=True)
class Letter:
    """A dead letter without its body. `number`: its sequence in MIDWATCH_DEAD; `digest`: of the body."""

    number: int
    at: datetime
    service: str
    reason: str
    error: str
    attempts: int = 0
    subject: str = ""
    stream: str = ""
    stream_seq: int = 0
    digest: bytes = b""
    cut: bool = False  # only the beginning of the body was kept

    @property
    def agent(self) -> str:
        """Whose message it was, by its subject; an agent's name with dots is one that the contract does not know."""
        tokens = self.subject.split(".")
        if tokens[0] != "$KV":
            return ".".join(tokens[2:-1])
        return ".".join(tokens[3:]) if tokens[1:2] == [subjects.SWITCH] else "".join(tokens[2:3])


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant. None is any."""

    service: str | None = None
    reason: str | None = None
    agent: str | None = None
    since: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            self.service in (None, letter.service)
            and self.reason in (None, letter.reason)
            and self.agent in (None, letter.agent)
            and (self.since is None or letter.at >= self.since)
        )


@dataclass(frozen=True)
class Original:
    """A message that died, and its letters, the newest first: one of each service that could not process it."""

    letters: tuple[Letter, ...]

    @property
    def newest(self) -> Letter:
        return self.letters[0]

    @property
    def numbers(self) -> list[int]:
        return [letter.number for letter in self.letters]

    @property
    def services(self) -> list[str]:
        return sorted({letter.service for letter in self.letters})

    @property
    def reasons(self) -> list[str]:
        return sorted({letter.reason for letter in self.letters})


@dataclass(frozen=True)
class Obstacle:
    """Why an original is not published again, and what to do instead. `force`: whether a person may insist."""

    why: str
    mend: str
    force: bool = False


def originals(letters: Iterable[Letter]) -> list[Original]:
    """The letters by the message that died, the one with the newest letter first."""
    groups: dict[tuple[object, ...], list[Letter]] = {}
    for letter in sorted(letters, key=lambda one: -one.number):
        # A stream that was made anew counts from 1 again: the body tells two messages of one place apart.
        place = (letter.stream, letter.stream_seq) if letter.stream else (letter.number,)
        groups.setdefault((*place, letter.subject, letter.digest), []).append(letter)
    return [Original(tuple(group)) for group in groups.values()]


def picked(found: Sequence[Original], wanted: Wanted) -> list[Original]:
    """The originals of which a letter is wanted, each with all its letters: every service reads what is published."""
    return [one for one in found if any(wanted.takes(letter) for letter in one.letters)]


def in_order(found: Iterable[Original]) -> list[Original]:
    """The originals as their streams had them."""
    return sorted(found, key=lambda one: (one.newest.stream, one.newest.stream_seq, one.newest.number))


def obstacle(original: Original, now: datetime, remembered: timedelta) -> Obstacle | None:
    """What stands against publishing the original again. `remembered`: for how long services know what they applied."""
    letter, reasons = original.newest, original.reasons
    drop = f"`midwatch dead drop {' '.join(map(str, original.numbers))}`"
    if UNREADABLE in reasons:
        return Obstacle("it is no dead letter that this release can read", f"look at it, then {drop}")
    if not letter.stream:
        return Obstacle(
            f"it came from no stream: {letter.service} was to hand it over and could not",
            f"{_by_hand(letter)}, then {drop}",
        )
    if letter.stream not in _EVENTS:
        return Obstacle(
            f"it was a write of {letter.stream}, and published again it would undo what was written since",
            f"write what you mean anew (`midwatch halt`, `resume`, `apply`), then {drop}",
        )
    if any(one.cut for one in original.letters):
        return Obstacle("only the beginning of its body was kept", f"have its sender send it anew, then {drop}")
    if refused := [reason for reason in reasons if reason in REFUSED_AGAIN]:
        return Obstacle(
            f"it is {' and '.join(refused)}, and will be refused again",
            f"mend the sender, then {drop}; --force once a release reads it",
            force=True,
        )
    if now - min(one.at for one in original.letters) > remembered:
        return Obstacle(
            f"it is older than the {remembered.total_seconds() / 86400:g} days for which services remember what they "
            "applied: whoever had applied it might count it twice",
            f"{drop}; --force if none had",
            force=True,
        )
    return None


def _by_hand(letter: Letter) -> str:
    if letter.subject == subjects.SWITCH:
        return "`midwatch halt` what its body names, if it is still to be halted"
    if letter.subject.startswith("midwatch.case."):
        return "tell the help desk yourself (`midwatch queue` has the case)"
    return "see to what its error names"


def headers_again(headers: Mapping[str, str]) -> dict[str, str]:
    """The original's headers, without those that told the server how to store it: a place in a batch that is long
    over, or an expected sequence, would have it refused."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() == subjects.MSG_ID.lower() or not name.lower().startswith(_SERVERS)
    }

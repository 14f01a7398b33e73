"""What a card says, line by line, and what differs between two of its versions. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from midwatch.contracts.control import Card
from midwatch_services.cards.meaning import as_words

from . import texts

_LISTS = ("can", "cannot", "escalate_when")


@dataclass(frozen=True, slots=True)
class Change:
    """`where`: the part of the card. `was` or `now` is empty for what was added or taken away."""

    where: str
    was: str
    now: str

    @property
    def kind(self) -> str:
        return "added" if not self.was else "removed" if not self.now else "changed"


def lines(card: Card) -> list[tuple[str, str]]:
    """Everything that it says besides its lists, as name and value."""
    skipped = ("agent", "owner", "purpose", *_LISTS)
    return [(_words(path), text) for path, text in _leaves(as_words(card)) if path[0] not in skipped and text]


def changes(before: Card, after: Card) -> list[Change]:
    """What became of it, in the order of the card."""
    one, other = as_words(before), as_words(after)
    found = []
    for name in _LISTS:
        gone, came = [str(line) for line in one.pop(name)], [str(line) for line in other.pop(name)]
        where = texts.load()(f"agent.{name}")
        found += [Change(where, line, "") for line in gone if line not in came]
        found += [Change(where, "", line) for line in came if line not in gone]
    old, new = dict(_leaves(one)), dict(_leaves(other))
    for path in dict.fromkeys([*old, *new]):
        was, now = old.get(path, ""), new.get(path, "")
        if was != now:
            found.append(Change(_words(path), was, now))
    return found


def _words(path: tuple[str, ...]) -> str:
    # The names of tools are the agent's own: they stay as they are.
    own = 1 if path[0] == "tools" else None
    return ", ".join(part if place == own else part.replace("_", " ") for place, part in enumerate(path))


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(value, list):
        yield path, "; ".join(_flat(one) for one in value)
    elif value is not None:
        yield path, texts.load()("base.yes" if value else "base.no") if isinstance(value, bool) else str(value)


def _flat(value: Any) -> str:
    return ", ".join(f"{name}: {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)

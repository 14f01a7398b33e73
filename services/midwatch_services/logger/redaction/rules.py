"""A card's rules, compiled: what each finds in a text, and the scan that says which of them could."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from midwatch.contracts.control import REDACTED, RedactRule
from midwatch.runtime import patterns

from . import kinds, letters
from .candidates import Scan, Wanted, scanner

_ORDER = ("email", "iban", "card", "phone")  # after a card's own patterns: the longer before what could be part of it


@dataclass(frozen=True, slots=True)
class Finder:
    """One rule on texts. `plain`: it is given dashes and spaces as ASCII writes them, not digits alone."""

    bit: int
    name: str
    reversible: bool
    find: Callable[[str], Iterable[kinds.Span]]
    plain: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What is replaced. `fields`: by the key in lower case, its name and whether it can be got back. `least`:
    characters that a text needs for any rule to match."""

    finders: tuple[Finder, ...]
    fields: dict[str, tuple[str, bool]]
    names: tuple[str, ...]
    scan: Scan
    phones: Finder | None
    least: int

    @property
    def reversible(self) -> bool:
        """Whether any of them needs the redaction key."""
        return any(one.reversible for one in self.finders) or any(again for _, again in self.fields.values())


@lru_cache(maxsize=256)
def compiled(redact: Sequence[RedactRule] = REDACTED) -> Rules:
    """The rules, ready to be used. Raises ValueError for one that no card could hold."""
    bits = {rule: 1 << place for place, rule in enumerate(redact)}
    finders: list[Finder] = []
    fields: dict[str, tuple[str, bool]] = {}
    wanted: list[Wanted] = []
    for rule, bit in bits.items():
        if rule.field is not None:
            fields[rule.field.lower()] = (rule.name, rule.reversible)
            wanted.append(Wanted(bit, field=rule.field))
        elif rule.pattern is not None:
            finders.append(Finder(bit, rule.name, rule.reversible, _own(rule.pattern), plain=False))
            wanted.append(Wanted(bit, pattern=rule.pattern))
    known = {rule.name: rule for rule in redact if rule.field is None and rule.pattern is None}
    if unknown := known.keys() - kinds.FINDERS.keys():
        raise ValueError(f"{min(unknown)!r} is no kind of data that is known by name")
    for one in (known[name] for name in _ORDER if name in known):
        finders.append(Finder(bits[one], one.name, one.reversible, kinds.FINDERS[one.name], plain=True))
        wanted.append(Wanted(bits[one], kind=one.name))
    phones = next((one for one in finders if one.plain and one.name == "phone"), None)
    own = any(not one.plain for one in finders)
    names = tuple(dict.fromkeys(rule.name for rule in redact))
    return Rules(tuple(finders), fields, names, scanner(wanted), phones, 1 if own or fields else 6)


def _own(pattern: str) -> Callable[[str], Iterator[kinds.Span]]:
    search = patterns.compiled(pattern)

    def find(text: str) -> Iterator[kinds.Span]:
        return (found.span() for found in search.finditer(text) if found.end() > found.start())

    return find


def spans(finder: Finder, plain: str, digits: str) -> Iterable[kinds.Span]:
    """Where the rule matches, given both spellings of a text."""
    return finder.find(plain if finder.plain else digits)


def spellings(text: str) -> tuple[str, str]:
    """A text as the finders are given it."""
    return letters.plain(text), letters.digits_plain(text)

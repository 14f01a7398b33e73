"""From a card's file to a `Card`: all mistakes of a file at once, each with its place."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from midwatch.contracts.control import Card
from midwatch.contracts.governance import PAGES
from midwatch.errors import MidwatchError
from midwatch.runtime.document import Document, Problem, dotted, no_key, parse

from .base import Section
from .log import REDACT_MOST, Redact
from .meaning import to_card
from .model import WORD_LIMIT, CardFile, Tool
from .values import percent

ADVISED = (0.1, 0.25)  # of an agent's runs are read in its first days
_PROSE = ("purpose", "can", "cannot", "escalate_when")
_NEEDED = {
    "agent": "its name, for instance `agent: refund-desk`",
    "owner": "who answers for it, for instance `owner: Head of Support <lead@example.org>`",
    "purpose": "what it is for, in a sentence",
    "can": "a list of what it may do, one line each",
    "kind": "`read`, `write` or `other`",
}


_AT_LEAST_ONE = "must be a whole number of 1 or more"
_WHOLE = {
    "halted_runs": "must be a whole number, 0 for never", "run_tokens": _AT_LEAST_ONE, "run_steps": _AT_LEAST_ONE,
    "days": _AT_LEAST_ONE, "minutes_a_day": "must be a whole number of minutes, 0 for no limit",
}  # fmt: skip


class CardErrors(MidwatchError):
    """The card cannot be used. `lines` names every mistake as `path:line:column: what to do`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Loaded:
    """A card with what its file stated. `stated`: paths such as `budget.run`; the rest are defaults."""

    path: Path
    card: Card
    stated: frozenset[str]
    notes: tuple[str, ...] = ()


def load(path: Path) -> Card:
    """The card in the file. Raises CardErrors."""
    return read(path).card


def read(path: Path) -> Loaded:
    """The card in the file, with what it stated and what is worth a remark. Raises CardErrors."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CardErrors([f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"]) from None
    document = parse(content)
    problems = list(document.problems)
    model = _validate(document, problems) if document.data is not None else None
    if problems or model is None:
        ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.place)
        raise CardErrors([f"{path}:{place.line}:{place.column}: {message}" for place, message in ordered])
    notes = []
    if path.stem != model.agent:
        notes.append(f"{path}: the file is named {path.stem!r}, its agent {model.agent!r}: the agent's name counts")
    notes += [
        f"{path}: `switch.trips.alerts` names {rule!r}, which no service of this release pages with{_near(rule)}"
        for rule in model.switch.trips.alerts
        if rule not in PAGES
    ]
    if not ADVISED[0] <= model.review.rate <= ADVISED[1]:
        low, high = map(percent, ADVISED)
        notes.append(f"{path}: `review.rate` is {percent(model.review.rate)}: {low} to {high} is advised")
    return Loaded(path, to_card(model), frozenset(_stated(model)), tuple(notes))


def _near(rule: str) -> str:
    near = get_close_matches(rule, PAGES, n=1)
    return f": did you mean {near[0]!r}?" if near else f": those are {', '.join(PAGES)}"


def find(paths: Iterable[Path]) -> list[Path]:
    """The files meant; a folder stands for the `.yaml` and `.yml` files in it. Raises CardErrors for an empty one."""
    files: list[Path] = []
    missing: list[str] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not inside:
            missing.append(f"{path}: there is no .yaml file in this folder: `midwatch card new AGENT` writes one")
        files += [file for file in inside if file not in files]
    if missing:
        raise CardErrors(missing)
    return files


def _validate(document: Document, problems: list[Problem]) -> CardFile | None:
    if not isinstance(document.data, dict):
        problems.append(Problem(document.place(()), "a card holds keys and values, such as `agent: refund-desk`"))
        return None
    problems += _too_long(document)
    try:
        return CardFile.model_validate(document.data)
    except ValidationError as error:
        found = [_problem(details, document) for details in error.errors(include_url=False)]
        refused = {problem.place for problem in document.problems}  # what was not read has no second mistake
        problems += [problem for problem in found if problem.place not in refused]
        return None


def count_words(text: str) -> int:
    """Words of a sentence: what stands between spaces and has a letter or digit in it."""
    return sum(any(char.isalnum() for char in token) for token in text.split())


def _too_long(document: Document) -> list[Problem]:
    total, over = 0, None
    for section in _PROSE:
        content = document.data.get(section)
        items = enumerate(content) if isinstance(content, list) else [(None, content)]
        for index, text in items:
            total += count_words(text) if isinstance(text, str) else 0
            if over is None and total > WORD_LIMIT:
                over = document.place((section,) if index is None else (section, index))
    if over is None:
        return []
    return [
        Problem(
            over,
            f"purpose, can, cannot and escalate_when hold {total} words, {total - WORD_LIMIT} over the limit of "
            f"{WORD_LIMIT}: the agent is too ambitious for its first version; cut what it does",
        )
    ]


def _problem(details: ErrorDetails, document: Document) -> Problem:
    path = tuple(part for part in details["loc"] if part != "[key]")
    of_key = details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
    if details["type"] == "extra_forbidden":
        message = _unknown(path)
    else:
        message = f"`{dotted(path)}` {_wrong(details, path)}" if path else _wrong(details, path)
    return Problem(document.place(path, of_key=of_key), message)


def _unknown(path: tuple[Any, ...]) -> str:
    section = _section(path[:-1])
    key = str(path[-1])
    if key in section.later:
        return f"`{dotted(path)}` is not enforced by this release, so it is not accepted: leave it out"
    return no_key(path, "a card", section.model_fields, section.later)


def _section(path: tuple[Any, ...]) -> type[Section]:
    """The model whose keys stand at `path`."""
    model: type[Section] = CardFile
    for part in path:
        if part == "tools":
            return Tool
        if part == "redact":
            return Redact
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return model


def _wrong(details: ErrorDetails, path: tuple[Any, ...]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return f"is missing: {_NEEDED[str(path[-1])]}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        near = get_close_matches(str(details["input"]).lower(), str(context["expected"]).split("'")[1::2], n=1)
        hint = f": did you mean `{near[0]}`?" if near else ""
        return f"must be {str(context['expected']).replace(chr(39), '`')}{hint}"
    if kind == "too_long":
        return f"holds too many rules: at most {REDACT_MOST}"
    if path[:2] == ("log", "redact") and len(path) == 3:
        return "must be `email`, `phone`, `card` or `iban`, `{name, pattern}` or `{field}`"
    if kind == "string_too_short":
        return "is empty"
    if kind == "string_type":
        return 'must be text: put it in "quotes"'
    if kind == "list_type":
        return "must be a list: begin each of its lines with `- `"
    if kind == "too_short":
        return "is empty: name at least one thing that the agent may do"
    if kind in ("int_type", "greater_than_equal"):
        return _WHOLE.get(str(path[-1]), "must be a whole number of 2 or more")
    if kind in ("float_type", "float_parsing", "greater_than"):
        return "must be a number above 1, such as 10"
    if kind.startswith("bool"):
        return "must be `true` or `false`"
    if path[0] == "tools" and len(path) == 2:
        return "must be `read`, `write` or `other`"
    return "must hold keys and values, or be left out"


def _stated(model: BaseModel, prefix: str = "") -> Iterable[str]:
    for name in model.model_fields_set:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _stated(value, f"{prefix}{name}.")
        else:
            yield prefix + name

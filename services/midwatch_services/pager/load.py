"""From pager.yaml to a `Policy`: all mistakes at once, each with its place; secrets are read from the environment."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from midwatch.contracts.subjects import FLEET
from midwatch.errors import MidwatchError
from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.document import Document, Problem, Words, dotted, no_key, parse

from . import model, words
from .channels import apprise_url
from .model import PagerFile
from .policy import Channel, Kind, Policy, Route, Step
from .quiet import QuietHours

_FILE = Words("pager file", "it says who is told, no more", "`midwatch pager new` writes one", "it has four levels")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KINDS: tuple[Kind, ...] = ("apprise", "webhook", "alertmanager")
_NEEDED = {
    "channels": 'the ways to reach people, for instance `channels: {chat: {apprise: "${CHAT_URL}"}}`',
    "contacts": "people by name, each with channels, for instance `contacts: {ann: [chat]}`",
    "routes": "who is told in which order, for instance `routes: {on-call: {steps: [{tell: ann, within: 10m}]}}`",
    "default": "the route of what no other takes, for instance `default: on-call`",
    "steps": "who is told in which order, for instance `steps: [{tell: ann, within: 10m}]`",
    "tell": "a contact, or a list of them",
    "hours": "two times of day, such as 22:00-07:00",
    "zone": "a time zone, such as Europe/Berlin",
}


class PagerFileErrors(MidwatchError):
    """The file cannot be used. `lines` names every mistake as `path:line:column: what to do`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the file says. `notes`: channels that cannot be used as things stand, each in one line."""

    policy: Policy
    notes: tuple[str, ...] = ()


def read(path: Path, environment: Mapping[str, str] | None) -> Loaded:
    """The policy in the file. A channel whose secret is missing or wrong is broken, and the others work; without an
    `environment` none is looked for. Raises PagerFileErrors."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PagerFileErrors([f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"]) from None
    document = parse(content, _FILE)
    problems = list(document.problems)
    found = _validate(document, problems) if document.data is not None else None
    if found is not None:
        problems += _unknown_names(found, document)
    if problems or found is None:
        ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.place)
        raise PagerFileErrors([f"{path}:{place.line}:{place.column}: {text}" for place, text in ordered])
    channels = {name: _channel(name, one, environment) for name, one in found.channels.items()}
    notes = tuple(
        f"{path}:{document.place(('channels', name)).line}: channel {name} cannot be used: {channel.broken}"
        for name, channel in channels.items()
        if channel.broken
    )
    return Loaded(_policy(found, channels), notes)


def _policy(found: PagerFile, channels: dict[str, Channel]) -> Policy:
    quiet = _quiet(found.quiet_hours)
    routes = tuple(
        Route(
            name, tuple(Step(tuple(step.tell), step.within) for step in one.steps),
            frozenset([one.severity] if one.severity else []), frozenset(one.agents), frozenset(one.rules),
            _quiet(one.quiet_hours) or quiet,
        )
        for name, one in found.routes.items()
    )  # fmt: skip
    return Policy(
        channels=channels, contacts={name: tuple(some) for name, some in found.contacts.items()}, routes=routes,
        default=found.default, quiet=quiet, interval=found.groups.interval, calm=found.groups.calm,
        acknowledged_for=found.groups.acknowledged_for, repeat_longest=found.repeat.longest,
        send_within=found.delivery.within, give_up_after=found.delivery.give_up_after,
        watchdog_behind=found.watchdog.behind, digests=_readers(found.digest),
        corrections=_readers(found.corrections),
    )  # fmt: skip


def _readers(found: model.Readers) -> dict[str, tuple[str, ...]]:
    whole = {FLEET: tuple(found.to)} if found.to else {}
    return whole | {agent: tuple(some) for agent, some in found.agents.items()}


def _quiet(found: model.Quiet | None) -> QuietHours | None:
    if found is None:
        return None
    begins, ends = found.hours
    return QuietHours(begins, ends, found.zone, frozenset(model.DAYS.index(day) for day in found.days))


# Channels


def _channel(name: str, found: model.Channel, environment: Mapping[str, str] | None) -> Channel:
    kind = next(kind for kind in _KINDS if getattr(found, kind))
    written = str(getattr(found, kind))
    if environment is None:
        return Channel(name, kind, written, found.secret or "", words.scheme_and_host(_VARIABLE.sub("…", written)))
    missing = sorted(
        {one for text in (written, found.secret or "") for one in _VARIABLE.findall(text) if not environment.get(one)}
    )
    if missing:
        which = " and ".join(f"${{{one}}}" for one in missing)
        verb = "is" if len(missing) == 1 else "are"
        return Channel(name, kind, "", broken=f"{which} {verb} not set in the environment of the pager", shown="…")
    url, secret = _filled(written, environment), _filled(found.secret or "", environment)
    return Channel(name, kind, url, secret, words.scheme_and_host(url), _wrong(kind, url, secret))


def _filled(text: str, environment: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environment[found[1]].strip(), text)


def _wrong(kind: Kind, url: str, secret: str) -> str:
    """Why a channel cannot work, or nothing. Never with the address in it."""
    if kind == "apprise":
        return "" if apprise_url.is_address(url) else "its address is none of https://appriseit.com/services"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        return "its address is not http://HOST/… or https://HOST/…"
    if kind == "webhook":
        try:
            signing.key_of(secret)
        except signing.BadSecret:
            return "its secret is not whsec_ and base64, or a text of 16 bytes and more"
    return ""


# Mistakes


def _validate(document: Document, problems: list[Problem]) -> PagerFile | None:
    if not isinstance(document.data, dict):
        problems.append(Problem(document.place(()), "the file holds keys and values, such as `contacts:`"))
        return None
    try:
        return PagerFile.model_validate(document.data)
    except ValidationError as error:
        refused = {problem.place for problem in document.problems}  # what was not read has no second mistake
        found = [_problem(details, document) for details in error.errors(include_url=False, include_input=True)]
        problems += [problem for problem in found if problem.place not in refused]
        return None


def _problem(details: ErrorDetails, document: Document) -> Problem:
    path = tuple(part for part in details["loc"] if part != "[key]")
    of_key = details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
    if details["type"] == "extra_forbidden":
        return Problem(document.place(path, of_key=True), no_key(path, "pager.yaml", sorted(_keys(path[:-1]))))
    # A list may be written as one value: then the path goes on below what stands in the file.
    shown = path
    while shown and shown not in document.values and details["type"] != "missing":
        shown = shown[:-1]
    return Problem(document.place(path, of_key=of_key), f"`{dotted(shown)}` {_text(details, path)}")


def _text(details: ErrorDetails, path: tuple[Any, ...]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return f"is missing: {_NEEDED[str(path[-1])]}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {str(context['expected']).replace(chr(39), '`')}"
    if kind == "list_type":
        return "must be a name, or a list of names" if path[-1] != "steps" else "must be a list: begin each with `- `"
    if kind == "too_short":
        return "is empty: name at least one"
    return "must hold keys and values"


def _keys(path: tuple[Any, ...]) -> Iterator[str]:
    """The keys that may stand at `path`."""
    at: Any = PagerFile
    for part in path:
        inner = at.model_fields.get(part) if isinstance(at, type) and issubclass(at, BaseModel) else None
        at = _model_in(inner.annotation) if inner else at
    yield from at.model_fields


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _unknown_names(found: PagerFile, document: Document) -> Iterator[Problem]:
    for name, channels in found.contacts.items():
        yield from _absent(channels, found.channels, ("contacts", name), "channel", document)
    for name, route in found.routes.items():
        for place, step in enumerate(route.steps):
            yield from _absent(step.tell, found.contacts, ("routes", name, "steps", place, "tell"), "contact", document)
    for section, readers in (("digest", found.digest), ("corrections", found.corrections)):
        yield from _absent(readers.to, found.contacts, (section, "to"), "contact", document)
        for agent, some in readers.agents.items():
            yield from _absent(some, found.contacts, (section, "agents", agent), "contact", document)
    yield from _absent([found.default], found.routes, ("default",), "route", document)
    for name in found.contacts:
        if name in found.routes:
            text = f"`{name}` is the name of a route as well: a card could mean either"
            yield Problem(document.place(("contacts", name), of_key=True), text)


def _absent(
    names: list[str], known: Mapping[str, Any], path: tuple[Any, ...], what: str, document: Document
) -> Iterator[Problem]:
    several: Callable[[int], tuple[Any, ...]] = lambda place: (*path, place)  # noqa: E731
    for place, name in enumerate(names):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"those are {', '.join(known)}"
            at = several(place) if several(place) in document.values else path
            yield Problem(document.place(at), f"`{name}` is no {what} of this file: {hint}")

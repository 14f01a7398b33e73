"""A digest as text, Markdown and HTML. What agents and customers wrote is in it: every rendering escapes for itself."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import fill
from typing import Any
from urllib.parse import quote

from midwatch.contracts.subjects import FLEET

from .decide import Digest
from .facts import Sentence, Source

WIDTH = 96  # characters of a line of text
BRIEF = 1800  # characters of what goes into a chat
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$-])")
_NAME = 64  # characters of an id that are shown
_LIST = "Where to look"


@dataclass(frozen=True, slots=True)
class Note:
    """The footnote of a sentence: what it speaks of, with the addresses where the console shows it."""

    number: int
    about: str
    commands: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    note: Note


@dataclass(frozen=True, slots=True)
class Part:
    heading: str
    lines: tuple[Line, ...]


def parts(digest: Digest, console: str | None) -> tuple[Part, list[Part], Part]:
    """Lead, sections and closing with their footnotes, numbered through."""
    number = 0

    def lines(sentences: Sequence[Sentence]) -> tuple[Line, ...]:
        nonlocal number
        found = []
        for sentence in sentences:
            number += 1
            found.append(Line(sentence.text, _note(number, sentence, digest, console)))
        return tuple(found)

    lead = Part("", lines(digest.lead))
    inner = [Part(section.heading, lines(section.sentences)) for section in digest.sections]
    return lead, inner, Part("", lines(digest.closing))


def _note(number: int, sentence: Sentence, digest: Digest, console: str | None) -> Note:
    kinds = {"run": "run", "alert": "alert", "case": "case", "day": "day"}
    kind = kinds[sentence.sources[0].kind] if sentence.sources else "day"
    names = ", ".join(_name(source.name) for source in sentence.sources)
    if kind == "day":
        about = "the runs of the day"
    elif sentence.total > len(sentence.sources):
        about = f"{sentence.total:,} {kind}s, such as {names}"
    else:
        about = f"{kind} {names}" if sentence.total == 1 else f"{kind}s {names}"
    links = [(_label(source, place), link) for place, source in enumerate(sentence.sources, 1)
             if (link := _link(source, console))]  # fmt: skip
    return Note(number, about, (_command(sentence.sources[0], digest),), tuple(links))


def _name(text: str) -> str:
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= _NAME else f"{line[: _NAME - 1]}…"


def _label(source: Source, place: int) -> str:
    return source.kind if place == 1 else str(place)


def _link(source: Source, console: str | None) -> str:
    if not console or source.kind != "run":
        return ""
    return f"{console.rstrip('/')}/runs/{quote(source.agent, safe='')}/{quote(source.name, safe='')}"


def _command(source: Source, digest: Digest) -> str:
    """The command that shows it; text that could steer a terminal is left out of it."""
    name = shlex.quote("".join(char for char in source.name if char.isprintable()))
    if source.kind == "day":
        whose = "" if source.agent == FLEET else f" --agent {source.agent}"
        mode = "" if digest.mode == "live" else f" --mode {digest.mode}"
        return f"midwatch runs --since {name}{whose}{mode}"
    verb = {"run": "show", "alert": "alerts show", "case": "queue show"}[source.kind]
    return f"midwatch {verb} {name}"


def text(digest: Digest, console: str | None = None) -> str:
    """For a terminal, and for mail readers that show no HTML."""
    lead, inner, closing = parts(digest, console)
    out = [digest.title, "=" * len(digest.title), ""]
    out += [_filled(line) for line in lead.lines]
    for part in inner:
        out += ["", part.heading, "-" * len(part.heading), ""]
        out += [_filled(line, "- ") for line in part.lines]
    out += ["", *(_filled(line) for line in closing.lines), "", _LIST, "-" * len(_LIST), ""]
    for line in (line for part in (lead, *inner, closing) for line in part.lines):
        note = line.note
        where = ", ".join(link for _, link in note.links) or "; ".join(note.commands)
        out.append(f"[{note.number}] {note.about}: {where}")
    return "\n".join(out) + "\n"


def _filled(line: Line, bullet: str = "") -> str:
    body = f"{line.text} [{line.note.number}]"
    return fill(
        body, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def markdown(digest: Digest, console: str | None = None) -> str:
    """With footnotes, or with links where there is a console."""
    lead, inner, closing = parts(digest, console)
    out = [f"# {_escaped(digest.title)}", "", *(_marked(line) for line in lead.lines)]
    for part in inner:
        out += ["", f"## {_escaped(part.heading)}", "", *(f"- {_marked(line)}" for line in part.lines)]
    out += ["", *(f"{_marked(line)}\n" for line in closing.lines)]
    for line in (line for part in (lead, *inner, closing) for line in part.lines):
        note = line.note
        if not note.links:
            commands = "; ".join(f"`{one.replace('`', ' ')}`" for one in note.commands)
            out.append(f"[^{note.number}]: {_escaped(note.about)}: {commands}")
    return "\n".join(out).rstrip() + "\n"


def _marked(line: Line) -> str:
    links = ", ".join(f"[{label}]({link})" for label, link in line.note.links)
    return f"{_escaped(line.text)} ({links})" if links else f"{_escaped(line.text)}[^{line.note.number}]"


def _escaped(plain: str) -> str:
    return _MARKDOWN.sub(r"\\\1", plain)


def html(digest: Digest, console: str | None = None) -> str:
    """A mail or a page by itself: nothing is loaded from anywhere."""
    lead, inner, closing = parts(digest, console)
    notes = [line.note for part in (lead, *inner, closing) for line in part.lines if not line.note.links]
    return str(_template().render(digest=digest, lead=lead, parts=inner, closing=closing, notes=notes, list=_LIST))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("midwatch_services.digest")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("digest.html.j2")


def brief(digest: Digest) -> str:
    """What fits into a chat: whole sentences from the top, and where the rest is."""
    whose = "" if digest.agent == FLEET else f" --agent {digest.agent}"
    rest = f"The rest: midwatch digest --date {digest.day}{whose}"
    out: list[str] = []
    used = len(rest) + 2
    blocks = [("", digest.lead), *((section.heading, section.sentences) for section in digest.sections)]
    for heading, sentences in blocks:
        for place, sentence in enumerate(sentences):
            line = f"• {sentence.text}" if heading else sentence.text
            head = f"\n{heading}\n" if heading and place == 0 else ""
            if used + len(head) + len(line) + 1 > BRIEF:
                return "\n".join([*out, "", rest])
            out.append(f"{head}{line}")
            used += len(head) + len(line) + 1
    return "\n".join([*out, "", rest])

"""A digest that was sent, taken apart again, so that the page can link what it names. Pure."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from midwatch.contracts.reviews import DigestRun, DigestWritten

from .addresses import run_path

PACE = 200  # words a minute
_NOTE = re.compile(r"\[\^(\d+)\]$")
_LINKS = re.compile(r" \(((?:\[[^\]]*\]\([^)\s]*\)(?:, )?)+)\)$")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")
_DEFINED = re.compile(r"\[\^(\d+)\]: (.*)$")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]<>()#+!|~&$-])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`links`: label and address on this console of what it speaks of. `note`: the same in words."""

    text: str
    links: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    sentences: list[Sentence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Told:
    """A digest to be shown. `minutes`: what reading it takes."""

    title: str
    lead: Section
    sections: list[Section]
    closing: Section
    minutes: int


def parse(digest: DigestWritten) -> Told:
    """The parts of a digest."""
    lines = digest.markdown.splitlines()
    notes = {found[1]: found[2] for line in lines if (found := _DEFINED.match(line))}
    runs = {run.run_id: run for run in digest.runs}
    lead, closing, sections = Section(""), Section(""), list[Section]()
    for line in lines:
        if line.startswith("## "):
            sections.append(Section(_plain(line[3:])))
        elif line.startswith("- ") and sections:
            sections[-1].sentences.append(_sentence(line[2:], notes, runs))
        elif line and not line.startswith("# ") and not _DEFINED.match(line):
            (closing if sections else lead).sentences.append(_sentence(line, notes, runs))
    return Told(digest.title, lead, sections, closing, max(1, round(digest.words / PACE)))


def _sentence(line: str, notes: dict[str, str], runs: dict[str, DigestRun]) -> Sentence:
    if found := _LINKS.search(line):
        links = [(label, urlsplit(url).path) for label, url in _LINK.findall(found[1])]
        here = tuple((label, path[path.find("/runs/") :]) for label, path in links if "/runs/" in path)
        return Sentence(_plain(line[: found.start()]), here)
    if found := _NOTE.search(line):
        about, _, commands = notes.get(found[1], "").rpartition(": ")
        return Sentence(_plain(line[: found.start()]), tuple(_links(commands, runs)), _plain(about))
    return Sentence(_plain(line))


def _links(commands: str, runs: dict[str, DigestRun]) -> Iterator[tuple[str, str]]:
    for command in re.findall(r"`([^`]*)`", commands):
        try:
            words: Sequence[str] = shlex.split(command)
        except ValueError:
            continue
        if words[:2] == ["midwatch", "show"] and len(words) == 3 and words[2] in runs:
            run = runs[words[2]]
            yield "run", run_path(run.agent, run.run_id)


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)

"""A note of corrections as Markdown, text and HTML. It quotes agents and customers: each rendering escapes them."""

import re
import shlex
from collections.abc import Iterator
from html import escape
from textwrap import fill

from .feedback import Entry, Group, Note

WIDTH = 96  # characters of a line of text
BRIEF = 1800  # characters of what goes into a chat
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$-])")


def markdown(note: Note) -> str:
    """For a repository, a ticket, a page."""
    out = [f"# {_escaped(note.title)}", "", _escaped(note.lead)]
    for group in note.groups:
        out += ["", f"## {_escaped(_heading(group))}"]
        for one in group.entries:
            out += ["", f"- `{command(one).replace('`', ' ')}`{_escaped(_besides(one))}"]
            out += [f"  - {label}: {_escaped(text)}" for label, text in facts(one)]
    out += ["", _escaped(rest(note))] if note.more else []
    return "\n".join(out) + "\n"


def text(note: Note) -> str:
    """For a terminal, and for mail readers that show no HTML."""
    out = [note.title, "=" * len(note.title), "", *fill(note.lead, WIDTH).splitlines()]
    for group in note.groups:
        out += ["", _heading(group), "-" * len(_heading(group))]
        for one in group.entries:
            out += ["", f"{command(one)}{_besides(one)}"]
            for label, said in facts(one):
                out += fill(f"{label}: {said}", WIDTH, initial_indent="  ", subsequent_indent="    ").splitlines()
    out += ["", rest(note)] if note.more else []
    return "\n".join(out) + "\n"


def html(note: Note) -> str:
    """A mail or a page by itself: nothing is loaded from anywhere."""
    out = [
        '<!doctype html><html lang="en"><meta charset="utf-8">', f"<title>{escape(note.title)}</title>",
        f"<h1>{escape(note.title)}</h1><p>{escape(note.lead)}</p>",
    ]  # fmt: skip
    for group in note.groups:
        out.append(f"<h2>{escape(_heading(group))}</h2>")
        for one in group.entries:
            inner = "".join(f"<li>{label}: {escape(said)}</li>" for label, said in facts(one))
            out.append(f"<p><code>{escape(command(one))}</code>{escape(_besides(one))}</p><ul>{inner}</ul>")
    out += [f"<p>{escape(rest(note))}</p>"] if note.more else []
    return "\n".join([*out, "</html>"]) + "\n"


def brief(note: Note) -> str:
    """What fits into a chat: the reasons with their counts, and where the rest is."""
    last = f"All of it: midwatch reviews feedback --agent {note.agent} --week {note.week}"
    lines, used = [note.lead, ""], len(note.lead) + len(last) + 3
    for group in note.groups:
        line = f"• {_heading(group)}"
        if (used := used + len(line) + 1) > BRIEF:
            break
        lines.append(line)
    return "\n".join([*lines, "", last])


def command(one: Entry) -> str:
    """What shows the run; text that could steer a terminal is left out of it."""
    run = "".join(char for char in one.run_id if char.isprintable())
    return f"midwatch show {shlex.quote(run)} --agent {one.agent}"


def facts(one: Entry) -> Iterator[tuple[str, str]]:
    """What there is to say of a run, each with its label."""
    yield from (("Asked", one.asked),) if one.asked else ()
    yield from (("The agent said", one.answered),) if one.answered else ()
    yield from (("Better", said) for said in one.corrected)
    yield from (("Note", said) for said in one.notes)


def rest(note: Note) -> str:
    """How many are not told of."""
    return f"{note.more:,} more, all in `midwatch reviews feedback --agent {note.agent} --week {note.week} --json`"


def _heading(group: Group) -> str:
    runs = "1 run" if group.count == 1 else f"{group.count:,} runs"
    elsewhere = "" if len(group.entries) else "; told under another reason"
    return f"{group.heading}: {runs} ({group.before:,} in the week before{elsewhere})"


def _besides(one: Entry) -> str:
    ticket = f", ticket {short_name(one.ticket)}" if one.ticket else ""
    return ticket + (f"; also: {', '.join(one.also).lower()}" if one.also else "")


def short_name(name: str) -> str:
    """A name on one line, cut where it is long."""
    line = "".join(char if char.isprintable() else " " for char in name)
    return line if len(line) <= 64 else f"{line[:63]}…"


def _escaped(plain: str) -> str:
    return _MARKDOWN.sub(r"\\\1", plain)

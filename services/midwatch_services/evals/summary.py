"""The gate as Markdown, for a pull request. What agents wrote stands in code spans, without what could end one: no
markup, link, mention or reference in it runs. Pure."""

from collections.abc import Iterable

from . import gate_words
from .gate import Gate, Turned

LIMIT = 60_000  # characters; GitHub takes 65,536
_CELL = 300  # characters of what is said of one case
_NAME = 100
_ROOM = 1_000  # characters that stay free: for what a cut table says of the rest
_SHOWN = 10  # names of a list
_MARKS = {"passed": "✅ Passed", "failed": "❌ Failed", "inconclusive": "⚠️ Inconclusive"}
_WORDS = {
    "new": "new to the set",
    "gone": "gone from the set",
    "changed": "changed since the baseline",
    "not_agreed": "not agreed on yet: reported only",
    "not_run": "did not come to an end",
}
_PLAIN = str.maketrans({"`": "ʼ", "|": "¦"})


def markdown(gate: Gate) -> str:
    """The summary, of at most `LIMIT` characters."""
    against = f" against {code(gate.baseline, _NAME)}" if gate.baseline else ""
    head = [
        f"## {_MARKS[gate.verdict]}: {code(gate.agent, _NAME)} {code(gate.version, _NAME)}{against}",
        "", gate.why, "",
    ]  # fmt: skip
    tail = [*_figures(gate), *_apart(gate), *_twins(gate)]
    room = LIMIT - _ROOM - len("\n".join([*head, *tail]))
    table = _table("Regressions", "first criterion missed", gate.regressions, max(0, room))
    room -= len("\n".join(table))
    table += _table("Repaired", "first criterion missed before", gate.repaired, max(0, room))
    return "\n".join([*head, *table, *tail]).rstrip("\n") + "\n"


def code(text: str, limit: int = _CELL) -> str:
    """Text that an agent or a customer wrote, as a code span in one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split()).translate(_PLAIN)
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    return f"` {line} `" if line else "` `"


def _table(title: str, column: str, rows: list[Turned], room: int) -> list[str]:
    if not rows:
        return []
    lines = [f"### {title} ({len(rows):,})", "", f"| case | {column} |", "|---|---|"]
    used = len("\n".join(lines))
    for place, one in enumerate(rows):
        unstable = " (unstable)" if one.unstable else ""
        line = f"| {code(one.case, _NAME)}{unstable} | {code(one.finding)} |"
        used += len(line) + 1
        if used > room:
            lines += [
                "",
                f"… and {len(rows) - place:,} more: they are in the JUnit file and in `midwatch eval gate --json`.",
            ]
            break
        lines.append(line)
    return [*lines, ""]


def _figures(gate: Gate) -> list[str]:
    before = f"{gate.baseline_passed} of {gate.cases}" if gate.baseline else "none"
    rows = [
        ("cases that pass, of those compared", f"{gate.passed} of {gate.cases}", before),
        (
            "cost of the replay",
            gate_words.cost(gate.cost),
            gate_words.cost(gate.baseline_cost) if gate.baseline else "",
        ),
    ]
    lines = ["| | now | baseline |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    if gate.p_value is not None:
        lines += [f"McNemar's exact test, one-sided: p = {gate.p_value:.4f}. {_sentence(gate_words.sight(gate))}", ""]
    if gate.unstable:
        some = _names(gate.unstable)
        lines += [f"**Unstable** (their {gate.repeats} replays differ), {len(gate.unstable):,}: {some}", ""]
    return lines


def _apart(gate: Gate) -> list[str]:
    lines = []
    for kind, words in _WORDS.items():
        names = [one.case for one in gate.apart if one.kind == kind]
        if names:
            lines.append(f"- {len(names):,} {words}: {_names(names)}")
    lines += [f"- could not be read: {code(line)}" for line in gate.broken[:_SHOWN]]
    if len(gate.broken) > _SHOWN:
        lines.append(f"- and {len(gate.broken) - _SHOWN:,} more files that could not be read")
    return ["### Not compared", "", *lines, ""] if lines else []


def _twins(gate: Gate) -> list[str]:
    if not gate.twins:
        return []
    head = [
        "### Stress twins, which do not gate",
        "",
        "| perturbation | twins | pass | fell | repaired | weaker than the case |",
    ]
    rows = [
        f"| {code(one.perturbation, _NAME)} | {one.twins} | {one.passed} | {one.fell} | {one.repaired} | {one.weaker} |"
        for one in gate.twins[:_SHOWN]
    ]
    return [*head, "|---|---|---|---|---|---|", *rows, ""]


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    some = ", ".join(code(name, _NAME) for name in listed[:_SHOWN])
    return f"{some} and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else some


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

"""A table as CSV that a spreadsheet shows as text: nothing in it is run as a formula. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

_SIGNS = "=+\\-@|%＝＋－＠｜％"
_BLANK = r"\s\"\ufeff"
_FIRST = re.compile(rf"[{_BLANK}]*[{_SIGNS}]| *[\t\r\n]")
# Where a comma is part of a number a spreadsheet begins a cell at a semicolon or a tab, and a row at a line's end, in
# spite of quotes.
_BEFORE = re.compile(rf"(?<![;{_BLANK}])[;{_BLANK}]++(?=[{_SIGNS}])")
_ENDS_A_CELL = re.compile(r"[;\t\r\n]")


def cell(value: object) -> str:
    """A value as it stands in the file. What a spreadsheet would compute has an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    inside = _BEFORE.sub(lambda found: f"{found[0]}'" if _ENDS_A_CELL.search(found[0]) else found[0], text)
    return f"'{inside}" if _FIRST.match(text) else inside


def written(rows: Iterable[Sequence[str]]) -> str:
    """Cells as lines of the file, each in quotes."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return out.getvalue()


def of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The whole file."""
    return written([columns, *([cell(value) for value in row] for row in rows)])

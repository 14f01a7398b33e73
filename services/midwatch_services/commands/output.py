"""What every command prints with: tables for people, one JSON object a line for scripts, one line for an error."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

OK, FAILED, USAGE, NOT_CONFIRMED, LEFT = 0, 1, 2, 3, 4  # LEFT: done, and some is left for a person

# Into a file or a pipe nothing is cut: there is no edge to fit.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
JsonOption = typer.Option("--json", help="One JSON object a line, for scripts.")


def clean(value: Any) -> str:
    """Text that agents or customers wrote, made safe for a terminal: no control characters, no markup."""
    text = "" if value is None else str(value)
    return escape("".join(c if c.isprintable() else " " for c in text))


def count_of(count: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def emit_json(rows: Iterable[Any]) -> None:
    """Each row as one line of JSON on standard output."""
    for row in rows:
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
    sys.stdout.flush()


def emit_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, empty: str) -> None:
    """The rows as a table, or `empty`, which says what to do next."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)  # what a row is named by is what the next command needs
    count = 0
    for row in rows:
        table.add_row(*(clean(row.get(column)) for column in columns))
        count += 1
    console.print(table if count else empty)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Ends the command with one line on standard error that says what to do."""
    sys.stderr.write(f"midwatch: {message}\n")
    raise typer.Exit(code)


def confirm(question: str, yes: bool, otherwise: str) -> None:
    """Asks unless `yes`; who says no, or cannot be asked, ends the command with what was `otherwise`."""
    try:
        if yes or typer.confirm(clean(question), err=True):
            return
    except typer.Abort:
        fail(f"{otherwise}: say --yes where nobody can be asked", USAGE)
    fail(otherwise)

"""What is said of a mistake in a case's file: what to do about it, in one line."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from midwatch.runtime.document import Document, Path, Problem, dotted, no_key

from .model import CaseFile

_NEEDED = {
    "case": "its name, for instance `case: duplicate-charge`",
    "conversation": "what the customer says, a list with one entry for each message",
    "run": "the id of the run that the case was made from",
    "tool": "the tool's name",
    "by": "who agreed",
    "at": "when",
    "hash": "of the criteria; `midwatch eval agree` writes it",
    "of": "the case that this is a twin of",
    "how": "one of the kinds of `midwatch eval stress`",
    "twin": "which case it is a twin of",
    "runs": "the ids of the runs whose words the twin holds",
}


def problem(details: ErrorDetails, document: Document, at: Path, model: type[BaseModel]) -> Problem:
    """The mistake with its place. `at`: where in the document the case stands."""
    inner = tuple(part for part in details["loc"] if part != "[key]")
    path = (*at, *inner)
    of_key = details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
    if details["type"] == "extra_forbidden":
        known = sorted(_keys(model, inner[:-1]))
        what = f"`{dotted(inner[:-1])}`" if len(inner) > 1 else "a case"
        return Problem(document.place(path, of_key=True), no_key(inner, what, known))
    # What may be written shorter than it is: then the path goes on below what stands in the file.
    shown = path
    while len(shown) > len(at) and shown not in document.values and details["type"] != "missing":
        shown = shown[:-1]
    name = dotted(shown[len(at) :])
    text = _text(details, inner)
    return Problem(document.place(path, of_key=of_key), f"`{name}` {text}" if name else f"a case {text}")


def _text(details: ErrorDetails, path: Path) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return f"is missing: {_NEEDED[str(path[-1])]}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        words = str(context["expected"]).split("'")[1::2]
        near = get_close_matches(str(details["input"]).lower(), words, n=1)
        return f"must be {str(context['expected']).replace(chr(39), '`')}" + (
            f": did you mean `{near[0]}`?" if near else ""
        )
    if kind == "list_type":
        return "must be a list: begin each of its lines with `- `"
    if kind == "too_short":
        return "is empty: name at least one"
    if kind in ("int_type", "greater_than_equal"):
        return "must be a whole number of 1 or more"
    if kind == "bool_type":
        return "must be `true` or `false`"
    if kind == "string_type":
        return 'must be text: put it in "quotes"'
    return "must hold keys and values"


def _keys(model: type[BaseModel], path: Path) -> Iterator[str]:
    """The keys that may stand at `path`, as the file writes them."""
    at: Any = model
    for part in path:
        named = {field.alias or name: field for name, field in at.model_fields.items()} if _is_model(at) else {}
        inner = named.get(str(part))
        at = _model_in(inner.annotation) if inner else at
    fields = (at if _is_model(at) else CaseFile).model_fields
    yield from (field.alias or name for name, field in fields.items())


def _is_model(at: Any) -> bool:
    return isinstance(at, type) and issubclass(at, BaseModel)


def _model_in(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)

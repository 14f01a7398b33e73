"""`evals/<agent>/judges.yaml`: how often people agreed with a judge, and whether that is often enough."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictInt, TypeAdapter, ValidationError

from midwatch.runtime.document import Words, parse
from midwatch_services.cards.base import Section

from .model import Line, Spec

FILE = "judges.yaml"
ENOUGH = 30  # settled runs on which people and the judge said the same
KAPPA = 0.6  # beyond chance: a judge that always says yes agrees often where few runs fail
_WORDS = Words("file", "it has five lines a judge", "`midwatch eval judge` writes it", "it has two levels")


class Measured(Section):
    """A judge held against settled verdicts. `kappa`: Cohen's, left out where all verdicts were alike."""

    judge: Spec
    runs: Annotated[StrictInt, Field(ge=0)]
    agreed: Annotated[StrictInt, Field(ge=0)]
    at: Line
    kappa: Annotated[
        float | None, BeforeValidator(lambda value: float(value) if isinstance(value, Decimal) else value)
    ] = None


_list = TypeAdapter(list[Measured])


def read(folder: Path) -> tuple[dict[str, Measured], list[str]]:
    """What is known of the judges, by their names; and what is wrong with the file, in lines."""
    path = folder / FILE
    try:
        document = parse(path.read_bytes(), _WORDS)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{path}:1: cannot be read: {(error.strerror or str(error)).lower()}"]
    if document.problems:
        return {}, [f"{path}:{place.line}: {message}" for place, message in document.problems]
    try:
        return {one.judge: one for one in _list.validate_python(document.data)}, []
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        line = document.place(tuple(first["loc"])).line
        return {}, [f"{path}:{line}: this is no list of judges: `midwatch eval judge AGENT module:function` writes it"]


def trusts(judges: Mapping[str, Measured], judge: str) -> bool:
    """Whether the judge may be a case's only criterion."""
    known = judges.get(judge)
    return known is not None and known.agreed >= ENOUGH and known.kappa is not None and known.kappa >= KAPPA

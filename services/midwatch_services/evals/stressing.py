"""Writes the twins of an agent's cases, in place of those that stand there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import load, stress, write
from .case import Case


@dataclass(frozen=True, slots=True)
class Written:
    """A twin's file, and the twin."""

    path: Path
    twin: Case


def write_twins(folder: Path, cases: Sequence[Case], wish: stress.Wish) -> list[Written]:
    """Writes each case's twins of the kinds that are wished. Nothing is written where one cannot be made. Raises
    NoLanguage, LostInTranslation, CannotWrite."""
    own = [case for case in cases if not case.twin_of]
    made = [(case, twin) for case in own for twin in stress.twins(case, own, wish)]
    written = []
    for case, twin in made:
        path = folder / load.STRESS / f"{twin.name}.yaml"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write.twin_text(twin, case.hash), encoding="utf-8")
        except OSError as error:
            raise write.CannotWrite(path=path, why=(error.strerror or str(error)).lower()) from None
        written.append(Written(path, twin))
    return written

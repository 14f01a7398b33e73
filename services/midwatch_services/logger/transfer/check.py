"""Whether an export is what was written: each file by its SHA-256, each event by its leaf."""

from collections.abc import Callable
from pathlib import Path

from ..store import EVENT_COLUMNS
from .files import Damaged, read_rows
from .layout import Manifest, digest, file_of, leaf_problem

Told = Callable[[int, int], None]
_STEP = 500


def first_problem(folder: Path, manifest: Manifest, told: Told = lambda done, total: None) -> str | None:
    """The first record, or else the first file, that was altered, in words; None where all is as it was written."""
    path = folder / file_of("events", manifest.format)
    total, number = manifest.counts.get("events", 0), 0
    try:
        for number, row in enumerate(read_rows(path, EVENT_COLUMNS), start=1):
            if why := leaf_problem(row):
                which = f"event {row['event']} {row['id']} of run {row['run_id']} (agent {row['agent']})"
                return f"{which}, record {number} of {path.name}: {why}"
            if number % _STEP == 0:
                told(number, total)
    except Damaged as error:
        return str(error)
    for file in manifest.files:
        if digest(folder / file.name) != file.sha256:
            return f"{file.name} is not the file that was written: its SHA-256 differs from the manifest's"
    if number != total:
        return f"{path.name} has {number} records, the manifest says {total}"
    return None

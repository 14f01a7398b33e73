"""The results of a replay as a file."""

import os
import re
import secrets
from pathlib import Path

import msgspec

from .outcome import Results

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def usual_path(folder: Path, agent: str, version: str) -> Path:
    """Where the results of a version stand unless `--out` says otherwise."""
    return folder / agent / "results" / f"{_UNSAFE.sub('-', version).strip('.-') or 'unnamed'}.json"


def write(path: Path, results: Results) -> None:
    """Writes the file whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

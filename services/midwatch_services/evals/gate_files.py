"""Finds and reads what the gate compares: `evals/<agent>/results/*.json`, and the file `evals/<agent>/baseline`, which
names a version."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from midwatch.contracts.money import to_money
from midwatch.errors import MidwatchError

from .outcome import SCHEMA, Results

BASELINE = "baseline"
RESULTS = "results"
_LARGEST = 1024 * 1024 * 1024  # bytes of a file of results


class BadResults(MidwatchError):
    """{path} {what}: replay again with `midwatch eval run {agent}`."""


class NoResults(MidwatchError):
    """{path} holds no results{of}: replay with `midwatch eval run {agent}` first."""


class BadBaseline(MidwatchError):
    """{path} {what}: write it with `midwatch eval baseline {agent} VERSION`."""


class _Head(Struct):
    agent: str
    version: str
    at: str
    schema: str = SCHEMA


def read(path: Path, agent: str) -> Results:
    """The results in a file. Raises BadResults for what is none, or of another agent."""
    try:
        if path.stat().st_size > _LARGEST:
            raise BadResults(path=path, what="is larger than a gigabyte", agent=agent)
        found = msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError:
        raise BadResults(path=path, what="is not there", agent=agent) from None
    except OSError as error:
        what = f"cannot be read ({(error.strerror or str(error)).lower()})"
        raise BadResults(path=path, what=what, agent=agent) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadResults(path=path, what=f"is no file of results ({error})", agent=agent) from None
    what = _wrong(found, agent)
    if what:
        raise BadResults(path=path, what=what, agent=agent)
    return structs.replace(found, cost_usd=None if found.cost_usd is None else to_money(found.cost_usd))


def newest(folder: Path, agent: str) -> Path:
    """The file whose replay began last, by its own word. Raises BadResults if one cannot be read: it might be that."""
    found = [(_moment(head.at), path) for path, head in _heads(folder, agent)]
    if not found:
        raise NoResults(path=folder / agent / RESULTS, of="", agent=agent)
    return max(found)[1]


def of_version(folder: Path, agent: str, version: str) -> Path:
    """The file of a version's results. Raises NoResults where there is none."""
    found = [(_moment(head.at), path) for path, head in _heads(folder, agent) if head.version == version]
    if not found:
        raise NoResults(path=folder / agent / RESULTS, of=f" of version {version!r}", agent=agent)
    return max(found)[1]


def baseline(folder: Path, agent: str) -> str | None:
    """The version that is the baseline, or None where nobody has said. Raises BadBaseline."""
    path = folder / agent / BASELINE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadBaseline(path=path, what=f"cannot be read ({error})", agent=agent) from None
    named = [line.strip() for line in lines if line.strip()]
    if len(named) != 1:
        raise BadBaseline(path=path, what=f"has {len(named)} lines, not one with a version", agent=agent)
    return named[0]


def set_baseline(folder: Path, agent: str, version: str) -> Path:
    """Makes a version the baseline; its results have to be there. Raises NoResults, BadResults, BadBaseline."""
    read(of_version(folder, agent, version), agent)
    path = folder / agent / BASELINE
    try:
        path.write_text(f"{version}\n", encoding="utf-8")
    except OSError as error:
        what = f"cannot be written ({(error.strerror or str(error)).lower()})"
        raise BadBaseline(path=path, what=what, agent=agent) from None
    return path


def digest(results: Results | None) -> str:
    """SHA-256 of results, in hex; empty for none."""
    return hashlib.sha256(msgspec.json.encode(results, order="deterministic")).hexdigest() if results else ""


def _heads(folder: Path, agent: str) -> Iterator[tuple[Path, _Head]]:
    for path in sorted((folder / agent / RESULTS).glob("*.json")):
        try:
            head = msgspec.json.decode(path.read_bytes(), type=_Head)
            _moment(head.at)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise BadResults(path=path, what=f"is no file of results ({error})", agent=agent) from None
        yield path, head


def _wrong(found: Results, agent: str) -> str:
    if found.schema != SCHEMA:
        return f"is of schema {found.schema!r}, and this release reads {SCHEMA!r}"
    if found.agent != agent:
        return f"is of agent {found.agent!r}, not of {agent!r}"
    twice = [name for name, count in Counter(case.case for case in found.results).items() if count > 1]
    if twice:
        return f"has the case {twice[0]!r} twice"
    try:
        _moment(found.at)
    except ValueError:
        return f"says that it is of {found.at!r}, which is no time"
    try:
        to_money(found.cost_usd or "0")
    except (ValueError, ArithmeticError):
        return f"says that it cost {found.cost_usd!r}, which is no money"
    return ""


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.astimezone()

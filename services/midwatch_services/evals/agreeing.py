"""Who agrees with a case's criteria, kept in its file; all else of the file stays, comments as well."""

import io
import os
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from midwatch.errors import MidwatchError

from . import load
from .case import Case, same_person
from .judge import asks
from .write import CannotWrite


class CannotAgree(MidwatchError):
    """Nobody can agree on {case}: {why}."""


class AgreedBefore(MidwatchError):
    """{by} agrees with {case} as it stands already: it takes another person."""


class Changed(MidwatchError):
    """{path} has changed or cannot be kept as it is: add `{entry}` to its `agreed` by hand."""


def agree(case: Case, by: str, now: datetime) -> Case:
    """Notes in the case's file that `by` agrees with the criteria as they stand, and returns the case as it is then.
    Raises CannotAgree, AgreedBefore, Changed, CannotWrite."""
    may_agree(case, by)
    path = Path(case.path)
    entry = {
        "by": " ".join(by.split()),
        "at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "hash": case.expect.hash,
    }
    shown = ", ".join(f"{name}: {value}" for name, value in entry.items())
    refused = Changed(path=path, entry=f"{{{shown}}}")
    try:
        before = path.read_text(encoding="utf-8-sig")
        after = _with(before, case.name, entry)
    except OSError as error:
        raise CannotWrite(path=path, why=(error.strerror or str(error)).lower()) from None
    except (KeyError, StopIteration, TypeError, ValueError, YAMLError):
        raise refused from None
    cases = load.all_of(path, before.encode(), case.agent), load.all_of(path, after.encode(), case.agent)
    bare = [[replace(one, agreed=()) for one in some] for some in cases]
    found = next((one for one in cases[1] if one.name == case.name), None)
    if bare[0] != bare[1] or found is None or found.expect.hash != case.expect.hash:
        raise refused
    _replace(path, after)
    return replace(found, judge_trusted=case.judge_trusted)


def may_agree(case: Case, by: str) -> None:
    """Raises CannotAgree or AgreedBefore where `by` may not."""
    if not same_person(by):
        raise CannotAgree(case=case.name, why="say who you are with --by")
    if case.twin_of:
        raise CannotAgree(case=case.name, why=f"it is a twin and asks what {case.twin_of} asks: agree on that one")
    if not asks(case):
        raise CannotAgree(case=case.name, why=f"it asks nothing yet; fill in `expect` in {case.path} first")
    if same_person(by) in {same_person(one) for one in case.agrees}:
        raise AgreedBefore(by=by, case=case.name)


def _with(text: str, name: str, entry: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    data = yaml.load(text)
    case = next(one for one in data["cases"] if one["case"] == name) if "cases" in data else data
    made = CommentedMap(entry)
    made.fa.set_flow_style()
    if isinstance(case.get("agreed"), list):
        case["agreed"].append(made)
    else:
        case["agreed"] = [made]
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def _replace(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(path.stat().st_mode & 0o777)
        Path(name).replace(path)
    except OSError as error:
        raise CannotWrite(path=path, why=(error.strerror or str(error)).lower()) from None

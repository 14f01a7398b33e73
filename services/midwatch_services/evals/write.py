"""A case as YAML that people read: short calls on one line, long text as blocks, what was noted as comments."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import LiteralScalarString

from midwatch.errors import MidwatchError

from . import load
from .case import CallRule, Case, Message, Recorded

_SHORT = 100  # characters of a mapping that still stands on one line
_TRUTH = ("y", "n", "yes", "no", "on", "off")
_WIDE = 1_000_000  # a long line is not folded: what is cut reads no better


class FileIsThere(MidwatchError):
    """{path} is there already and stays as it is: choose another name with `--name`, or remove the file first."""


class CannotWrite(MidwatchError):
    """{path} cannot be written: {why}."""


class DoesNotRead(MidwatchError):
    """{path} would not read back as it was meant ({why}): write the case by hand."""


def text(case: Case, notes: Sequence[str] = ()) -> str:
    """The file of one case. `notes`: lines that stand as comments before what is asked."""
    about = _plain({"case": case.name, "about": case.note, "task": case.task})
    if case.run_id:
        about["from"] = _short(_plain({"run": case.run_id, "version": case.version}))
    about |= {"earlier": [_short(_message(one)) for one in case.earlier]} if case.earlier else {}
    about["conversation"] = [_block(turn) for turn in case.turns]
    rest: dict[str, Any] = {"expect": expected(case)}
    if case.missing != "nearest":
        rest["missing"] = case.missing
    if case.kinds:
        rest["tools"] = _flow(dict(sorted(case.kinds.items())))
    if case.recorded:
        rest["recorded"] = [_call(one, case) for one in case.recorded]
    if case.agreed:
        rest["agreed"] = [_flow({"by": one.by, "at": one.at, "hash": one.hash}) for one in case.agreed]
    return dump(about) + comments(notes) + dump(rest)


def twin_text(case: Case, hash_: str) -> str:
    """The file of a twin: what its customer says, and of which case and runs it is."""
    twin = _flow({"of": case.twin_of, "how": case.perturbation, "hash": hash_, "runs": list(case.runs or ())})
    head = comments(["Made by `midwatch eval stress`, which writes it anew; all else is as in its case."])
    return head + dump({"case": case.name, "twin": twin, "conversation": [_block(turn) for turn in case.turns]})


def comments(lines: Iterable[str]) -> str:
    """Each line as a comment: whatever it holds, it stays one."""
    shown = (" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in lines)
    return "".join(f"# {line}".rstrip() + "\n" for line in shown)


def _printed(text: str) -> bool:
    """Whether the text holds nothing that YAML reads otherwise, such as the line breaks of other scripts."""
    return all(char.isprintable() or char == "\n" for char in text)


class _Representer(RoundTripRepresenter):
    """Without anchors; and what older YAML reads as a truth value stands in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> Any:
        style = "'" if data.lower() in _TRUTH else None if _printed(data) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.text)


def dump(data: Any) -> str:
    """As YAML."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = _WIDE
    yaml.allow_unicode = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def save(path: Path, content: str, case: Case) -> None:
    """Writes a new file, once it is sure that it reads as the case. Raises FileIsThere, CannotWrite, DoesNotRead."""
    read = load.one(path, content.encode(), case.agent)
    if isinstance(read, str):
        raise DoesNotRead(path=path, why=read)
    if read.hash != case.hash:
        raise DoesNotRead(path=path, why="something of it changed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise FileIsThere(path=path) from None
    except OSError as error:
        raise CannotWrite(path=path, why=(error.strerror or str(error)).lower()) from None


def expected(case: Case) -> dict[str, Any]:
    """What the case asks, as its file has it."""
    asked = case.expect
    found: dict[str, Any] = {}
    for name in ("says", "says_not"):
        if phrases := getattr(asked, name):
            found[name] = list(phrases)
    for name in ("calls", "calls_not", "writes"):
        rules: tuple[CallRule, ...] | None = getattr(asked, name)
        if rules or (name == "writes" and rules is not None):
            found[name] = [_rule(rule) for rule in rules]
    if asked.max_cost is not None:
        found["max_cost"] = f"${asked.max_cost}"
    for name in ("hands_off", "max_steps", "judge"):
        if getattr(asked, name) is not None:
            found[name] = getattr(asked, name)
    return found


def _rule(rule: CallRule) -> Any:
    return _short(_plain({"tool": rule.tool, "arguments": rule.arguments or None, "when": rule.when}))


def _message(message: Message) -> dict[str, Any]:
    return {message.role: _block(message.text)}


def _call(call: Recorded, case: Case) -> Any:
    given = {"tool": call.tool, "arguments": call.arguments, "result": _block(call.result), "error": call.error}
    found = {name: value for name, value in given.items() if value is not None}
    if case.kinds.get(call.tool, "other") != call.kind:
        found["kind"] = call.kind
    return _short(found)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value not in (None, "")}


def _block(value: Any) -> Any:
    """Text of several lines as a block, where that keeps it as it is."""
    if not isinstance(value, str) or "\n" not in value or not _printed(value):
        return value
    lines = value.removesuffix("\n").split("\n")
    whole = lines[0] and lines[-1] and all(line == line.strip() for line in lines)
    return LiteralScalarString(value) if whole else value


def _short(found: dict[str, Any]) -> Any:
    """On one line, where it is short."""
    lines = any(isinstance(one, LiteralScalarString) for one in found.values())
    return found if lines or len(str(found)) > _SHORT else _flow(found)


def _flow(found: dict[str, Any]) -> CommentedMap:
    made = CommentedMap(found)
    made.fa.set_flow_style()
    return made

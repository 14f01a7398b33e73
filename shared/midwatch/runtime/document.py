"""YAML as plain data with the place of every key and value; nothing of it is ever executed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

SIZE_LIMIT = 64 * 1024  # bytes
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")}

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One mistake in a file."""

    place: Place
    message: str


class Words(NamedTuple):
    """What mistakes call the file: its kind, why it is small, what to do with an empty one, how deep it goes. `limit`:
    how many bytes it may have."""

    kind: str
    small: str
    empty: str
    deep: str
    limit: int = SIZE_LIMIT


CARD = Words("card", "a card is one page", "`midwatch card new AGENT` writes a card", "a card has three levels")


@dataclass(slots=True)
class Document:
    """What a file says. `keys` and `values`: where each stands, by its path from the root."""

    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path, *, of_key: bool = False) -> Place:
        """Where `path` stands, or else the nearest thing around it."""
        if of_key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(1, 1))


def parse(content: bytes, words: Words = CARD) -> Document:
    """The document in `content`; every problem found is in it, and `data` is None where nothing could be read."""
    document = Document()
    if len(content) > words.limit:
        size = f"{len(content):,} bytes, the limit is {words.limit:,}"
        document.problems.append(Problem(Place(1, 1), f"the file has {size}: {words.small}"))
        return document
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _after(content[: error.start].decode("utf-8", "replace"))
        document.problems.append(Problem(place, "the file is not UTF-8: save it as UTF-8"))
        return document
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            document.problems.append(Problem(Place(1, 1), f"the file is empty: {words.empty}"))
        else:
            document.data = _read(root, (), document)
    except (YAMLError, RecursionError) as error:
        document.problems.append(_not_yaml(error, text, words))
    return document


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it: `tools.pay[2].cost`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def no_key(path: Path, of: str, known: Iterable[str], more: Iterable[str] = ()) -> str:
    """What is said of a key that `of` does not have, with the nearest of those it has. `more`: further names that may
    have been meant."""
    known = list(known)
    near = get_close_matches(str(path[-1]).lower(), [*known, *more], n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
    return f"`{dotted(path)}` is no key of {of}: {hint}"


def _after(text: str) -> Place:
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _not_yaml(error: Exception, text: str, words: Words) -> Problem:
    if isinstance(error, RecursionError):
        return Problem(Place(1, 1), f"the file is nested too deep: {words.deep}")
    if not isinstance(error, MarkedYAMLError):
        place = _after(text[: getattr(error, "position", 0)])
        return Problem(place, "the file holds control characters: leave them out")
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    problem = " ".join((error.problem or "it cannot be read").split())
    if "'\\t'" in problem:
        return Problem(place, "a tab cannot indent YAML: use spaces")
    if "another document" in problem:
        return Problem(place, f"a second document begins here (`---`): write one {words.kind} a file")
    if "cannot start any token" in problem or "mapping values are not allowed" in problem:
        problem += '; text with special characters belongs in "quotes"'
    return Problem(place, f"this is not YAML: {problem}")


def _read(node: Node, path: Path, document: Document) -> Any:
    place = Place(node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, ScalarNode) and not node.value and path in document.keys:
        place = document.keys[path]  # of an empty value, the parser's mark is on a later line
    document.values[path] = place
    if node.anchor:
        document.problems.append(Problem(place, "anchors and aliases (`&`, `*`) are not accepted: write it out"))
        return None
    if node.tag not in _PLAIN:
        document.problems.append(Problem(place, f"the tag {node.tag!r} is not accepted: leave it out"))
        return None
    if isinstance(node, SequenceNode):
        return [_read(child, (*path, index), document) for index, child in enumerate(node.value)]
    if isinstance(node, MappingNode):
        return _mapping(node, path, document)
    return _scalar(str(node.tag).removeprefix(_TAG), node.value)


def _mapping(node: MappingNode, path: Path, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = Place(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if not isinstance(key_node, ScalarNode) or key_node.tag != _TAG + "str":
            document.problems.append(Problem(place, 'a key must be text: put it in "quotes"'))
            continue
        key = key_node.value
        if key in data:
            first = document.keys[*path, key]
            document.problems.append(Problem(place, f"`{key}` stands twice: the first is on line {first.line}"))
            continue
        document.keys[*path, key] = place
        data[key] = _read(value_node, (*path, key), document)
    return data


def _scalar(kind: str, text: str) -> Any:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return Decimal(text)
    except (ValueError, InvalidOperation):
        return text
    if kind == "bool":
        return text.lower() == "true"
    return None if kind == "null" else text

"""From `evals/<agent>/*.yaml` to cases. A malformed case is told with its place, and the others still load."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import BadAgentName, MidwatchError
from midwatch.runtime.document import Document, Problem, Words, no_key, parse
from midwatch.runtime.document import Path as Keys

from . import mistakes, trusted
from .case import Agreed, CallRule, Case, Expect, Kind, Message, Recorded
from .model import Call, CaseFile, Rule, Said, TwinFile
from .values import plain

FOLDER = Path("evals")
STRESS = "stress"  # the folder of the twins, in the agent's
_FILE = Words(
    "case", "leave out what no agent needs of long results", "`midwatch eval add RUN` writes a case",
    "a case has five levels", limit=4 * 1024 * 1024,
)  # fmt: skip


class NoEvalSet(MidwatchError):
    """There is no {folder}: make cases with `midwatch eval add RUN --agent {agent}`."""


@dataclass(slots=True)
class EvalSet:
    """The cases of an agent. `broken`: of each case or file that could not be read all its mistakes, each as
    `file:line: what to do`. `erased`: a line for each case that is left out since its run was erased."""

    cases: list[Case] = field(default_factory=list)
    broken: list[list[str]] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Written:
    """A case or twin as one file has it."""

    path: Path
    line: int
    model: CaseFile | TwinFile


def load(where: Path | str, root: Path = FOLDER) -> tuple[list[Case], list[str]]:
    """The cases in a folder or of an agent, twins after the others, and one line for each that could not be read.
    Raises NoEvalSet, BadAgentName."""
    return told(read(where, root))


def told(found: EvalSet) -> tuple[list[Case], list[str]]:
    """The cases, and one line for each that could not be read."""
    return found.cases, [_one_line(lines) for lines in found.broken]


def folder_of(agent: str, root: Path = FOLDER) -> Path:
    """Where the agent's cases stand. Raises BadAgentName."""
    if not is_agent_name(agent):
        raise BadAgentName(agent=agent)
    return root / agent


def read(where: Path | str, root: Path = FOLDER) -> EvalSet:
    """As `load`, with every mistake. Raises NoEvalSet, BadAgentName."""
    folder = where if isinstance(where, Path) else folder_of(where, root)
    agent = folder.resolve().name
    folder_of(agent)
    if not folder.is_dir():
        raise NoEvalSet(folder=folder, agent=agent)
    found = EvalSet()
    judges, wrong = trusted.read(folder)
    found.broken += [[line] for line in wrong]
    written = list(_first_of_each(_all(folder, found), found))
    for one in written:
        if isinstance(one.model, CaseFile):
            case = _case(one.model, agent, str(one.path))
            trusts = case.expect.judge is not None and trusted.trusts(judges, case.expect.judge)
            found.cases.append(replace(case, judge_trusted=trusts))
    by_name = {case.name: case for case in found.cases}
    for one in written:
        if isinstance(one.model, TwinFile):
            _add_twin(one, one.model, by_name, found)
    return found


def one(path: Path, content: bytes, agent: str) -> Case | str:
    """The only case of a file that may not be there yet, or what is wrong with it, in one line."""
    found = EvalSet()
    written = list(_of_file(path, content, found))
    if found.broken:
        return _one_line(found.broken[0])
    if len(written) != 1 or not isinstance(written[0].model, CaseFile):
        return "it holds no single case"
    return _case(written[0].model, agent, str(path))


def all_of(path: Path, content: bytes, agent: str) -> list[Case]:
    """The cases of a file that can be read, twins apart."""
    written = _of_file(path, content, EvalSet())
    return [_case(one.model, agent, str(path)) for one in written if isinstance(one.model, CaseFile)]


def files(folder: Path) -> list[Path]:
    """The files of cases in an agent's folder, and of twins in the one inside."""
    both = (folder, folder / STRESS)
    return [
        path
        for inside in both
        if inside.is_dir()
        for path in sorted(inside.iterdir())
        if path.suffix in (".yaml", ".yml") and not path.name.startswith(".") and path.name != trusted.FILE
    ]


@dataclass(frozen=True, slots=True)
class Origin:
    """A case or twin as its file has it, whether or not it is valid beside the others: the run or the case that it is
    of; `runs`: those that a twin names, None where it names none."""

    path: Path
    name: str
    run_id: str = ""
    twin_of: str = ""
    how: str = ""
    runs: list[str] | None = None


def origins(folder: Path) -> list[Origin]:
    """Of each case and twin in an agent's folder that can be read by itself."""
    found = []
    for one in _all(folder, EvalSet()):
        if isinstance(one.model, TwinFile):
            twin = one.model.twin
            found.append(Origin(one.path, one.model.case, twin_of=twin.of, how=twin.how, runs=twin.runs))
        else:
            found.append(Origin(one.path, one.model.case, one.model.source.run if one.model.source else ""))
    return found


def is_broken(path: Path) -> bool:
    """Whether something of the file cannot be read."""
    found = EvalSet()
    try:
        list(_of_file(path, path.read_bytes(), found))
    except OSError:
        return True
    return bool(found.broken)


def parse_file(content: bytes) -> Document:
    """What a file of cases says, with the places."""
    return parse(content, _FILE)


def _one_line(lines: list[str]) -> str:
    more = f" (and {len(lines) - 1} more: `midwatch eval check` names all)" if len(lines) > 1 else ""
    return lines[0] + more


def _all(folder: Path, found: EvalSet) -> Iterator[_Written]:
    for path in files(folder):
        try:
            content = path.read_bytes()
        except OSError as error:
            found.broken.append([f"{path}:1: cannot be read: {(error.strerror or str(error)).lower()}"])
            continue
        yield from _of_file(path, content, found)


def _of_file(path: Path, content: bytes, found: EvalSet) -> Iterator[_Written]:
    document = parse_file(content)
    if document.data is None or not isinstance(document.data, dict):
        problems = document.problems or [Problem(document.place(()), "a case holds keys, such as `conversation:`")]
        found.broken.append(_lines(path, problems))
        return
    for at in _places(document):
        problems = [one for one in document.problems if _inside(one, at, document)]
        model = _validated(document, at, problems)
        if problems or model is None:
            found.broken.append(_lines(path, problems))
        else:
            yield _Written(path, document.place(at).line, model)
    outside = [one for one in document.problems if not any(_inside(one, at, document) for at in _places(document))]
    if "cases" in document.data:
        outside += [
            Problem(document.place((key,), of_key=True), no_key((key,), "a list of cases", ["cases"]))
            for key in document.data
            if key != "cases"
        ]
        if not isinstance(document.data["cases"], list):
            outside.append(Problem(document.place(("cases",)), "`cases` must be a list: begin each with `- case: …`"))
    if outside:
        found.broken.append(_lines(path, outside))


def _places(document: Document) -> list[Keys]:
    """Where the file's cases stand in it: the whole file, or each entry of `cases`."""
    if "cases" not in document.data:
        return [()]
    cases = document.data["cases"]
    return [("cases", index) for index in range(len(cases))] if isinstance(cases, list) else []


def _inside(problem: Problem, at: Keys, document: Document) -> bool:
    if not at:
        return True
    index = int(at[1])
    after = document.values.get(("cases", index + 1))
    return document.place(at) <= problem.place and (after is None or problem.place < after)


def _validated(document: Document, at: Keys, problems: list[Problem]) -> CaseFile | TwinFile | None:
    data: Any = document.data
    for part in at:
        data = data[part]
    if not isinstance(data, dict):
        problems.append(Problem(document.place(at), "a case holds keys and values, such as `conversation:`"))
        return None
    model = TwinFile if "twin" in data else CaseFile
    try:
        return model.model_validate(data)
    except ValidationError as error:
        refused = {one.place for one in problems}  # what was not read has no second mistake
        told = [mistakes.problem(one, document, at, model) for one in error.errors(include_url=False)]
        problems += [one for one in told if one.place not in refused]
        return None


def _lines(path: Path, problems: Iterable[Problem]) -> list[str]:
    ordered = sorted(dict.fromkeys(problems), key=lambda one: one.place)
    return [f"{path}:{place.line}: {message}" for place, message in ordered]


def _first_of_each(written: Iterable[_Written], found: EvalSet) -> Iterator[_Written]:
    """Without those whose name another has: results are told by it."""
    first: dict[str, _Written] = {}
    for one in written:
        before = first.setdefault(one.model.case, one)
        if before is one:
            yield one
        else:
            where = f"{before.path}:{before.line}"
            found.broken.append(
                [f"{one.path}:{one.line}: `{one.model.case}` is the name of a case in {where}: choose another"]
            )


def _add_twin(one: _Written, model: TwinFile, cases: Mapping[str, Case], found: EvalSet) -> None:
    of = cases.get(model.twin.of)
    again = "`midwatch eval stress` makes it anew"
    if of is None:
        found.broken.append(
            [f"{one.path}:{one.line}: its case `{model.twin.of}` is not in the set: mend that one, or remove the twin"]
        )
    elif of.hash != model.twin.hash:
        found.broken.append([f"{one.path}:{one.line}: its case `{of.name}` has changed since: {again}"])
    else:
        untold = None if model.twin.how == "several" else ()
        also = untold if model.twin.runs is None else tuple(model.twin.runs)
        found.cases.append(
            replace(
                of, name=model.case, turns=tuple(model.conversation), twin_of=of.name, perturbation=model.twin.how,
                also=also, agreed=(), path=str(one.path),
            )
        )  # fmt: skip


def _case(model: CaseFile, agent: str, path: str) -> Case:
    tools = dict(model.tools)
    for call in model.recorded:
        if call.kind is not None:
            tools.setdefault(call.tool, call.kind)
    return Case(
        name=model.case,
        agent=agent,
        turns=tuple(model.conversation),
        expect=_expect(model),
        earlier=tuple(map(_message, model.earlier)),
        recorded=tuple(_recorded(one, tools) for one in model.recorded),
        missing=model.missing,
        kinds=tools,
        run_id=model.source.run if model.source else "",
        version=(model.source.version or "") if model.source else "",
        task=model.task or "",
        note=model.about or "",
        agreed=tuple(Agreed(one.by, one.at, one.hash) for one in model.agreed),
        path=path,
    )


def _message(one: Said) -> Message:
    if one.customer is not None:
        return Message("customer", one.customer)
    return Message("agent", one.agent) if one.agent is not None else Message("human", one.human or "")


def _recorded(one: Call, tools: Mapping[str, Kind]) -> Recorded:
    kind = one.kind or tools.get(one.tool, "other")
    return Recorded(one.tool, plain(one.arguments), plain(one.result), one.error, kind)


def _expect(model: CaseFile) -> Expect:
    asked = model.expect
    return Expect(
        says=tuple(asked.says),
        says_not=tuple(asked.says_not),
        calls=_rules(asked.calls),
        calls_not=_rules(asked.calls_not),
        writes=None if asked.writes is None else _rules(asked.writes),
        hands_off=asked.hands_off,
        max_cost=asked.max_cost,
        max_steps=asked.max_steps,
        judge=asked.judge,
    )


def _rules(rules: Iterable[Rule]) -> tuple[CallRule, ...]:
    return tuple(CallRule(one.tool, plain(one.arguments), one.when) for one in rules)

"""The user's function: found, and called for each thing that the customer says."""

import asyncio
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import midwatch
from midwatch.contracts.envelope import new_id
from midwatch.errors import MidwatchError
from midwatch.fields import to_text

from .standin import BlockingStandIn, Book, StandIn

Shape = Literal["run", "desk", "text"]
_DESK = ("desk", "agent")  # first parameters by which an agent is wanted rather than a run
_SHOWN = 300  # characters of an error
# Where no code of the user's stands: ours, the standard library's, what is installed.
_INSTALLED = tuple(filter(None, map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))))
_NOT_THEIRS = (str(Path(midwatch.__file__).parent), str(Path(__file__).parents[1]), *_INSTALLED, "<")


class BadTarget(MidwatchError):
    """--target {target}: {why}"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the customer says, and what was said before. `number` counts from 1. `messages`: the whole conversation,
    this turn's text last, each `{"role": "customer", "agent" or "human", "text": …}`."""

    text: str
    number: int
    messages: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function to be replayed, and how it is called: with a run and a turn, an agent and a text, or a text."""

    call: Callable[..., Any]
    shape: Shape
    asynchronous: bool

    async def answer(self, book: Book, agent: str, version: str, turn: Turn) -> None:
        """Has an asyncio function answer one turn."""
        desk = StandIn().agent(agent, version=version)
        if self.shape == "run":
            async with desk.run(input=turn.text, run_id=f"eval-{new_id()}") as run:
                answer = await self.call(run, turn)
                if answer is not None:
                    run.conclude(answer)
            return
        book.say(await (self.call(desk, turn.text) if self.shape == "desk" else self.call(turn.text)))

    def answer_in_thread(self, book: Book, agent: str, version: str, turn: Turn) -> None:
        """Has a function that blocks answer one turn."""
        desk = BlockingStandIn().agent(agent, version=version)
        if self.shape == "run":
            with desk.run(input=turn.text, run_id=f"eval-{new_id()}") as run:
                answer = _waited(self.call(run, turn))
                if answer is not None:
                    run.conclude(answer)
            return
        book.say(_waited(self.call(desk, turn.text) if self.shape == "desk" else self.call(turn.text)))


def find(target: str) -> Function:
    """The function that `module:function` or `file.py:function` names. Raises BadTarget."""
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise BadTarget(target=target, why="write module:function, or file.py:function")
    found: Any = _module(target, where)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BadTarget(target=target, why=_no_name(found, where, part)) from None
    if not callable(found):
        raise BadTarget(target=target, why=f"{name} is no function but {type(found).__name__}")
    return Function(found, _shape(target, found), _asynchronous(found))


def said_of(error: BaseException) -> str:
    """An exception of the agent in one line, with the place in its own code where it came from."""
    text = " ".join(to_text(f"{type(error).__name__}: {to_text(error)}".removesuffix(": ")).split())[:_SHOWN]
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith(_NOT_THEIRS)] or frames[-1:]
    return f"{text} ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else text


def _module(target: str, where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _file(target, Path(where))
        sys.path[:0] = [] if "" in sys.path or str(Path.cwd()) in sys.path else [str(Path.cwd())]
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            why = f"there is no module {where!r}: run this in the folder that holds it, or name that in PYTHONPATH"
            raise BadTarget(target=target, why=why) from None
        raise BadTarget(target=target, why=f"importing {where} failed: {said_of(error)}") from None
    except BadTarget:
        raise
    except BaseException as error:  # sys.exit() in a module, too
        raise BadTarget(target=target, why=f"importing {where} failed: {said_of(error)}") from None


def _file(target: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise BadTarget(target=target, why=f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadTarget(target=target, why=f"{path} is no Python file")
    sys.path.insert(0, str(path.resolve().parent))  # so that it finds what lies beside it
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _no_name(found: Any, where: str, name: str) -> str:
    known = [one for one, value in vars(found).items() if callable(value) and not one.startswith("_")]
    own = [one for one in known if getattr(getattr(found, one), "__module__", None) == getattr(found, "__name__", "")]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(own[:8]) or 'no function'}"
    return f"{where} has no {name!r}: {hint}"


def _shape(target: str, function: Callable[..., Any]) -> Shape:
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return "text"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [one.name for one in signature.parameters.values() if one.kind in positional and one.default is one.empty]
    if len(wanted) == 2:
        return "desk" if wanted[0] in _DESK else "run"
    if len(wanted) == 1:
        return "text"
    what = f"it takes {', '.join(wanted) or 'nothing'}"
    raise BadTarget(target=target, why=f"{what}: it has to take (run, turn), (desk, text) or (text)")


def _waited(answer: Any) -> Any:
    """A plain function may still return something to be awaited."""

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait()) if inspect.isawaitable(answer) else answer


def _asynchronous(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004

"""A judge of the user's own: found by its name, asked about what an agent did, and held against people's verdicts.

    def polite(conversation: list[dict[str, str]], outcome: dict[str, Any]) -> bool | dict[str, Any]: ...

`conversation`: messages with `role` (customer, agent or human) and `text`, in order. `outcome`: as `Outcome` has it:
`said`, `calls`, `handed_off`, `model_calls`, `cost_usd`, `seconds`. The answer is true or false, or
`{"passed": bool, "why": str}`. The function may be async.
"""

import asyncio
import contextlib
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from midwatch.errors import MidwatchError

from .case import Case
from .outcome import Outcome
from .say import quoted

TIMEOUT = 60.0  # seconds for one answer
Judge = Callable[[list[dict[str, str]], dict[str, Any]], Any]
Conversation = list[dict[str, str]]


class NoFunction(MidwatchError):
    """{spec} cannot be used ({why}): write `module:function`, with the module in this folder or installed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said. `ok`: None where it gave no answer, and `said` is then why."""

    ok: bool | None
    said: str = ""


def load_judge(spec: str) -> Judge:
    """The function that `module:function` names, looked for in this folder too. Raises NoFunction."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise NoFunction(spec=spec, why="it is not `module:function`")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        why = f"there is no module {module}" if error.name == module else f"it needs {error.name}"
        raise NoFunction(spec=spec, why=why) from None
    except AttributeError:
        raise NoFunction(spec=spec, why=f"{module} has no {name}") from None
    except (Exception, SystemExit) as error:
        raise NoFunction(spec=spec, why=f"{type(error).__name__}: {quoted(str(error))}") from None
    if not callable(found):
        raise NoFunction(spec=spec, why="it is no function")
    return found  # type: ignore[no-any-return]


async def ask(judge: Judge, case: Case, outcome: Outcome, timeout: float = TIMEOUT) -> Judged:
    """What the judge says of an agent's answers to a case. It never raises: an error is no answer, with its reason."""
    return await ask_about(judge, conversation_of(case, outcome), outcome, timeout)


async def ask_about(judge: Judge, conversation: Conversation, outcome: Outcome, timeout: float = TIMEOUT) -> Judged:
    """As `ask`, of any conversation."""
    given = msgspec.to_builtins(outcome)
    try:
        async with asyncio.timeout(timeout):
            if inspect.iscoroutinefunction(judge):
                answer = await judge(conversation, given)
            else:
                answer = await _on_a_thread(judge, conversation, given)
                answer = await answer if inspect.isawaitable(answer) else answer
    except TimeoutError:
        return Judged(None, f"no answer within {timeout:g} s")
    except (Exception, SystemExit) as error:
        return Judged(None, f"it raised {type(error).__name__}: {quoted(str(error))}")
    return _answer(answer)


async def _on_a_thread(judge: Judge, conversation: Conversation, outcome: dict[str, Any]) -> Any:
    """The judge's answer; one that never comes keeps no program from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_it(value)

    def work() -> None:
        try:
            given = future.set_result, judge(conversation, outcome)
        except (Exception, SystemExit) as error:
            given = future.set_exception, RuntimeError(str(error)) if isinstance(error, StopIteration) else error
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(tell, *given)

    threading.Thread(target=work, daemon=True, name="judge").start()
    return await future


def conversation_of(case: Case, outcome: Outcome) -> Conversation:
    """What was said, in order as far as it is known: each answer after its turn, what is left over at the end."""
    found = [{"role": one.role, "text": one.text} for one in case.earlier]
    said = list(outcome.said)
    for turn in case.turns:
        found.append({"role": "customer", "text": turn})
        if said:
            found.append({"role": "agent", "text": said.pop(0)})
    return found + [{"role": "agent", "text": text} for text in said]


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two who said yes or no; None where both said the same of all, so that chance explains it."""
    count = len(pairs)
    if not count:
        return None
    agreed = sum(one == other for one, other in pairs) / count
    yes = sum(one for one, _ in pairs) / count, sum(other for _, other in pairs) / count
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def _answer(answer: Any) -> Judged:
    passed = answer.get("passed") if isinstance(answer, dict) else answer
    if not isinstance(passed, bool):
        return Judged(None, f"it answered {quoted(repr(answer))}, not true, false or {{'passed': …, 'why': …}}")
    why = answer.get("why", "") if isinstance(answer, dict) else ""
    return Judged(passed, why if isinstance(why, str) else repr(why))

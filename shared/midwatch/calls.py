"""One call of a model or a tool: timed, and recorded when it came back or failed."""

import inspect
import time
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType, TracebackType
from typing import Any, Self, TypeVar

from . import usage
from .contracts.runs import ToolKind
from .errors import Halted
from .fields import to_text
from .purse import Charge

T = TypeVar("T")

Record = Callable[..., object]  # record(event, at, **fields)


class _Call:
    def __init__(self, record: Record, charge: Charge | None) -> None:
        self._record = record
        self.charge = charge
        self._answer: Any = None
        self._began = 0.0

    def came_back(self, answer: T) -> T:
        """Takes note of what the call gave."""
        self._answer = answer
        return answer

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorded((time.perf_counter() - self._began) * 1000, error)
        if self.charge is not None:
            self.charge.commit()

    def _recorded(self, latency_ms: float, error: BaseException | None) -> None:
        raise NotImplementedError

    def _charged(self, fields: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
        return self.charge.ended(fields, error) if self.charge is not None else {}


class ModelCall(_Call):
    """A call of a model."""

    def __init__(self, record: Record, charge: Charge, function: Any, keywords: Mapping[str, Any]) -> None:
        super().__init__(record, charge)
        self._function = function
        self._keywords = keywords

    def _recorded(self, latency_ms: float, error: BaseException | None) -> None:
        fields = usage.read(self._answer, self._keywords, self._function)
        fields |= self._charged(fields, error)
        self._record("model_called", None, **fields, latency_ms=round(latency_ms, 3), error=_described(error))


class ToolCall(_Call):
    """A call of a tool. One that may write `drains`: a halt waits for it, and it counts as under way meanwhile."""

    def __init__(
        self, record: Record, charge: Charge | None, drain: Callable[[int], None], name: str, kind: ToolKind,
        function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(record, charge)
        self.name = name
        self.drains = kind != "read"
        self._drain = drain
        self._kind = kind
        self.arguments = arguments_of(function, args, keywords)

    def __enter__(self) -> Self:
        if self.drains:
            self._drain(1)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self.drains:
                self._drain(-1)

    def _recorded(self, latency_ms: float, error: BaseException | None) -> None:
        self._record(
            "tool_called", None, tool=to_text(self.name), kind=self._kind, arguments=self.arguments,
            result=self._answer, error=_described(error), latency_ms=round(latency_ms, 3), **self._charged({}, error),
        )  # fmt: skip


def arguments_of(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `function` by their names."""
    if not args:
        return dict(keywords)
    names = _names(function)
    if len(args) <= len(names) and keywords.keys().isdisjoint(names[: len(args)]):
        return dict(zip(names, args, strict=False)) | dict(keywords)
    try:
        return dict(inspect.signature(function).bind(*args, **keywords).arguments)
    except (TypeError, ValueError):
        return {"args": list(args), **keywords}


def _names(function: Any) -> tuple[str, ...]:
    """Names of the positional parameters of a plain function or method, none of any other: asking for a whole signature
    takes longer than recording the call."""
    plain = isinstance(function, FunctionType | MethodType) and not hasattr(function, "__wrapped__")
    if not plain or function.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return ()
    names: tuple[str, ...] = function.__code__.co_varnames[: function.__code__.co_argcount]
    return names[1:] if isinstance(function, MethodType) else names


def _described(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, Halted):
        return to_text(error)
    return to_text(f"{type(error).__name__}: {to_text(error)}".rstrip(": "))

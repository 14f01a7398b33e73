"""Whether what an agent reports of its model calls' cost is what the prices make of them. Pure.

One alert is open for a model of an agent, from the first call that differs until so many agree in a row.
"""

from dataclasses import dataclass
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.money import to_money
from midwatch.contracts.runs import ModelCalled
from midwatch.runtime.pricing import Cost, agreement, cached_would_explain

from . import say
from .alerts import Book, Cause, Condition, Decision
from .decide import Observed
from .state import Open, Subject

COST_DIFFERS = "cost_differs"
AGREEING = 20  # calls in a row after which all is well again


class ModelState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`differing`: calls that differed, in all. `agreed`: calls in a row that agree, since the last that differed."""

    differing: int = 0
    agreed: int = 0
    raised: int = 0
    alerts: dict[str, Open] = {}


@dataclass(frozen=True, slots=True)
class Compared:
    """A model call whose cost was reported and can be computed. `model` is what is counted by itself."""

    model: Subject
    cause: Cause
    said: ModelCalled
    cost: Cost
    cached: bool  # that its source leaves cached tokens out would explain it

    @property
    def differs(self) -> bool:
        return agreement(self.cost) == "differs"


def compared(event: RunEvent, observed: Observed) -> Compared | None:
    """The call as `judge` takes it; None where there is nothing to compare."""
    data, cost = event.data, observed.cost
    if cost is None or cost.computed is None or not isinstance(data, ModelCalled):
        return None
    name = f"{data.provider or ''}/{data.model}".replace("\0", "?")  # PostgreSQL's text holds no NUL
    model = Subject(data.mode, event.agent, name)
    cause = Cause(observed.run, observed.ticket, observed.event_id, observed.seq)
    cached = agreement(cost) == "differs" and cached_would_explain(
        data.provider, data.model, data.usage, cost, event.time
    )
    return Compared(model, cause, data, cost, cached)


def judge(state: ModelState, call: Compared) -> tuple[ModelState, list[Decision]]:
    """The model's state after one call. Dust counts neither way."""
    found = agreement(call.cost)
    book = Book(call.model, state.alerts, state.raised)
    if found == "differs":
        book.met(_condition(call), call.cause, again=True)
        return replace(
            state, differing=state.differing + 1, agreed=0, raised=book.raised, alerts=book.alerts
        ), book.said
    if found is None or not state.alerts:
        return state, []
    agreed = state.agreed + 1
    if agreed < AGREEING:
        return replace(state, agreed=agreed), []
    for name in state.alerts:
        book.end(name, f"{AGREEING} calls in a row cost what they are reported to cost")
    return replace(state, agreed=0, alerts=book.alerts), book.said


def lapse(state: ModelState, model: Subject) -> list[Decision]:
    """What is said before the state of a model that nobody calls any more is dropped."""
    book = Book(model, state.alerts, state.raised)
    for name in state.alerts:
        book.end(name, "it has not been called for a long time")
    return book.said


def _condition(call: Compared) -> Condition:
    reported, computed = call.cost.amount, call.cost.computed
    assert reported is not None and computed is not None
    value, limit, title = to_money(reported), to_money(computed), _title(call, reported, computed)
    return Condition(COST_DIFFERS, "warn", title, value, limit, None, "reported")


def _title(call: Compared, reported: Decimal, computed: Decimal) -> str:
    data, about = call.said, "about " if call.cost.computed_basis == "estimated" else ""
    provider = f" ({say.name(data.provider)})" if data.provider else ""
    text = (
        f"A call of {say.name(data.model)}{provider} by {call.model.agent} is reported to cost "
        f"{say.dollars(reported)}, by its price it costs {about}{say.dollars(computed)}"
    )
    return f"{text}; cached tokens that it does not report would explain it" if call.cached else text

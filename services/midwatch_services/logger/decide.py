"""The rows of runs and alerts, folded from their events in any order. Pure: no clock, no database.

Every field is a sum, a least, a greatest, or a register that the event with the least or greatest key
(`seq`, time, id) fills, so that the order of the events does not matter. Each event must be folded once.

`messages` counts the `said` events: `started.input` repeats the first of them, and what a model put out is none.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import ToolRule
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import AlertAcknowledged, AlertRaised, AlertResolved
from midwatch.contracts.runs import CostBasis, Finished, HandedOff, ModelCalled, RunData, Said, Started, ToolCalled
from midwatch.runtime.pricing import Cost, agreement, or_estimate, price, tool_cost, worst

from .policy import POLICY, Policy

_PLACES = Decimal("0.000000000001")
LARGEST_SEQ = 2**63 - 1  # that a column holds
_FIRST, _LAST = "~", ""  # keys after every other and before every other: digits come between


class RunRow(msgspec.Struct, kw_only=True):
    """What is known of one run. Times are text in UTC, costs decimal text, durations microseconds.

    `month` is that in which the log got the first of its events; `stored_at`, when it got the newest. A `…_key` names
    the event that filled a register.
    `cost_usd` is None where nothing is known of the cost; with `cost_basis` "unpriced" it is the known part of it, and
    `unpriced_calls` have no known price. Calls whose reported cost is not what the prices make of them are counted
    (`differing_calls`), and both figures of them summed.
    """

    agent: str
    run_id: str
    month: str = ""
    stored_at: str = ""
    head_key: str = _FIRST
    version: str = ""
    mode: str = ""
    ticket_key: str = _FIRST
    ticket: str | None = None
    session_key: str = _FIRST
    session: str | None = None
    started_key: str = _FIRST
    started_id: str | None = None
    started_at: str | None = None
    channel: str | None = None
    customer: str | None = None
    finished_key: str = _LAST
    finished_id: str | None = None
    ended_at: str | None = None
    resolution: str | None = None
    error: str | None = None
    halted_by: str | None = None
    epoch: int | None = None
    handed_off_key: str = _LAST
    handed_off_to: str | None = None
    handed_off_reason: str | None = None
    first_at: str = _FIRST
    last_at: str = _LAST
    cost_usd: str | None = None
    cost_basis: CostBasis | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    model_errors: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    messages: int = 0
    events: int = 0
    model_us: int = 0
    tool_us: int = 0
    unpriced_calls: int = 0
    differing_calls: int = 0
    differing_reported_usd: str | None = None
    differing_computed_usd: str | None = None


class AlertRow(msgspec.Struct, kw_only=True):
    """What is known of one alert. `raised` is the whole event data as JSON, None until it arrives."""

    alert_id: str
    raised_key: str = _FIRST
    raised_at: str | None = None
    service: str | None = None
    agent: str | None = None
    run_id: str | None = None
    rule: str | None = None
    action_taken: str | None = None
    raised: str | None = None
    acknowledged_key: str = _FIRST
    acknowledged_at: str | None = None
    acknowledged_by: str | None = None
    resolved_key: str = _LAST
    resolved_at: str | None = None
    resolved_reason: str | None = None
    repeats: int = 0


Alert = AlertRaised | AlertAcknowledged | AlertResolved


def fold_alert(row: AlertRow, event: Envelope[Alert]) -> AlertRow:
    """The row with the event in it; folding an event twice changes nothing."""
    row = msgspec.structs.replace(row)
    data, at = event.data, text_of(event.time)
    key = f"{at} {event.id}"
    if isinstance(data, AlertRaised) and key < row.raised_key:
        row.raised_key, row.raised_at, row.service = key, at, event.source.rsplit("/", 1)[-1]
        row.agent, row.run_id, row.rule, row.action_taken = data.agent, data.run_id, data.rule, data.action_taken
        row.raised = msgspec.json.encode(data).decode()
    elif isinstance(data, AlertAcknowledged) and key < row.acknowledged_key:
        row.acknowledged_key, row.acknowledged_at, row.acknowledged_by = key, at, data.by
    elif isinstance(data, AlertResolved) and key > row.resolved_key:
        row.resolved_key, row.resolved_at = key, at
        row.resolved_reason, row.repeats = data.reason, data.repeats
    return row


_NO_TOOLS: Mapping[str, ToolRule] = {}


def fold(
    row: RunRow, events: Iterable[tuple[RunEvent, str]], policy: Policy = POLICY,
    tools: Mapping[str, ToolRule] = _NO_TOOLS,
) -> RunRow:  # fmt: skip
    """The row with the events in it, each with its time as `text_of` writes it.

    Each must be of that run and not be in it yet. `tools`: those of the agent's card, which may say what a call costs.
    """
    row = msgspec.structs.replace(row)
    for event, at in events:
        data = event.data
        key = f"{min(data.seq, LARGEST_SEQ):019d} {at} {event.id}"
        _fold_common(row, data, at, key)
        if isinstance(data, ModelCalled):
            _fold_model_call(row, event, data, policy)
        elif isinstance(data, ToolCalled):
            _fold_tool_call(row, data, policy, tools)
        elif isinstance(data, Said):
            row.messages += 1
        elif isinstance(data, (Started, HandedOff, Finished)):
            _fold_register(row, event.id, data, at, key)
    return row


def clock_note(time: datetime, stored_at: datetime, mode: str, policy: Policy = POLICY) -> str | None:
    """What the log says of an event whose time is far from the server's."""
    behind = stored_at - time
    if mode not in policy.clock_modes or -policy.clock_tolerance <= behind <= policy.clock_tolerance:
        return None
    seconds = round(abs(behind.total_seconds()))
    if behind.total_seconds() < 0:
        return f"clock {seconds} s ahead of the server"
    return f"clock {seconds} s behind the server, unless the event waited on disk"


def text_of(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds: as text in the order of time."""
    if time.tzinfo is not UTC:
        try:
            time = time.astimezone(UTC)
        except OverflowError:  # within a day of year 1 or 9999
            time = time.replace(tzinfo=UTC)
    # A third faster than `isoformat`, which writes the zone as well.
    day, clock = (time.year, time.month, time.day), (time.hour, time.minute, time.second, time.microsecond)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (*day, *clock)  # noqa: UP031


def _fold_common(row: RunRow, data: RunData, at: str, key: str) -> None:
    row.events += 1
    if at < row.first_at:
        row.first_at = at
    if at > row.last_at:
        row.last_at = at
    if key < row.head_key:
        row.head_key, row.version, row.mode = key, data.version, data.mode
    if data.ticket is not None and key < row.ticket_key:
        row.ticket_key, row.ticket = key, data.ticket
    if data.session is not None and key < row.session_key:
        row.session_key, row.session = key, data.session


def _fold_register(row: RunRow, id: str, data: Started | HandedOff | Finished, at: str, key: str) -> None:
    if isinstance(data, Started) and key < row.started_key:
        row.started_key, row.started_id, row.started_at = key, id, at
        row.channel, row.customer = data.channel, data.customer
    elif isinstance(data, HandedOff) and key > row.handed_off_key:
        row.handed_off_key, row.handed_off_to, row.handed_off_reason = key, data.to, data.reason
    elif isinstance(data, Finished) and key > row.finished_key:
        row.finished_key, row.finished_id, row.ended_at = key, id, at
        row.resolution, row.error = data.resolution, data.error
        row.halted_by, row.epoch = data.halted_by, data.epoch


def _fold_model_call(row: RunRow, event: RunEvent, data: ModelCalled, policy: Policy) -> None:
    row.model_calls += 1
    row.model_errors += data.error is not None
    row.model_us += _micros(data.latency_ms, policy)
    if data.usage is not None:
        row.input_tokens += min(data.usage.input_tokens, policy.largest_count)
        row.output_tokens += min(data.usage.output_tokens, policy.largest_count)
    cost = price(data.provider, data.model, data.usage, data.cost_usd, event.time)
    _fold_cost(row, or_estimate(cost, data.estimate_usd))


def _fold_tool_call(row: RunRow, data: ToolCalled, policy: Policy, tools: Mapping[str, ToolRule]) -> None:
    row.tool_calls += 1
    row.tool_errors += data.error is not None
    row.tool_us += _micros(data.latency_ms, policy)
    rule = tools.get(data.tool)
    if (cost := tool_cost(data.cost_usd, rule.cost if rule else None)) is not None:
        _fold_cost(row, cost)


def _fold_cost(row: RunRow, cost: Cost) -> None:
    if row.cost_basis != cost.basis:
        row.cost_basis = cost.basis if row.cost_basis is None else worst(row.cost_basis, cost.basis)
    if cost.amount is None:
        row.unpriced_calls += 1
        return
    row.cost_usd = _plus(row.cost_usd, cost.amount)
    if cost.computed is not None and agreement(cost) == "differs":
        row.differing_calls += 1
        row.differing_reported_usd = _plus(row.differing_reported_usd, cost.amount)
        row.differing_computed_usd = _plus(row.differing_computed_usd, cost.computed)


def _plus(total: str | None, amount: Decimal) -> str:
    text = f"{Decimal(total or 0) + amount.quantize(_PLACES):f}"
    return text.rstrip("0").rstrip(".")  # twelve places: there is always a point


def _micros(milliseconds: float | None, policy: Policy) -> int:
    return 0 if milliseconds is None else round(min(milliseconds * 1000, float(policy.largest_count)))

"""The fold of a run: any order, any repeats, the same row."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logged import NOON, envelope, received
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import ToolRule
from midwatch.contracts.money import to_money
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch_services.logger import store
from midwatch_services.logger.decide import RunRow, clock_note, fold, text_of


def run_event(event: str, **fields: Any) -> RunEvent:
    made = envelope(event, **fields)
    return RunEvent(made.data.agent, event, made.id, made.time, made.source, made.data)


def row(*events: RunEvent) -> RunRow:
    return fold(RunRow(agent="desk", run_id="r-1"), ((event, text_of(event.time)) for event in events))


def test_a_run_is_counted_by_hand() -> None:
    folded = row(
        run_event("started", input="Hello", at=NOON, channel="chat"),
        run_event("said", seq=1, by="customer", text="Hello"),
        run_event("model_called", seq=2, model="m", cost_usd="0.10", usage={"input_tokens": 7, "output_tokens": 2}),
        run_event("tool_called", seq=3, tool="t", error="no"),
        run_event("tool_called", seq=4, tool="t", latency_ms=1.5),
        run_event("model_called", seq=5, model="m", cost_usd="0.20", latency_ms=2.0),
        run_event("said", seq=6, by="agent", text="Hi"),
        run_event("finished", seq=7, resolution="resolved", at=NOON + timedelta(seconds=3)),
    )
    assert (folded.messages, folded.model_calls, folded.tool_calls, folded.tool_errors) == (2, 2, 2, 1)
    assert (folded.input_tokens, folded.output_tokens) == (7, 2)
    assert (folded.cost_usd, folded.cost_basis) == ("0.3", "reported")
    assert (folded.tool_us, folded.model_us, folded.events) == (1500, 2000, 8)
    assert (folded.started_at, folded.ended_at) == ("2026-11-22T12:00:00.000000Z", "2026-11-22T12:00:03.000000Z")
    assert (folded.resolution, folded.channel) == ("resolved", "chat")


def test_a_cost_that_nobody_knows_is_not_zero() -> None:
    folded = row(run_event("model_called", model="nobody-knows-this-model", usage={"input_tokens": 5}))
    assert (folded.cost_usd, folded.cost_basis) == (None, "unpriced")


def test_a_partly_known_cost_keeps_its_weakest_basis() -> None:
    folded = row(
        run_event("model_called", model="m", cost_usd="0.10"),
        run_event("model_called", model="nobody-knows-this-model", usage={"input_tokens": 5}),
    )
    assert (folded.cost_usd, folded.cost_basis) == ("0.1", "unpriced")


def test_calls_without_a_known_price_are_counted() -> None:
    unknown = [run_event("model_called", model="nobody-knows-this-model", usage={"input_tokens": 5}) for _ in range(2)]
    assert row(run_event("model_called", model="m", cost_usd="0.10"), *unknown).unpriced_calls == 2


def test_calls_whose_reported_cost_differs_from_their_price_are_summed_both_ways() -> None:
    calls = [
        run_event(
            "model_called", provider="openai", model="gpt-4o-mini", usage={"input_tokens": 1_000_000}, cost_usd=usd
        )
        for usd in ("0.15", "0.30", "0.05")
    ]
    folded = row(*calls)
    assert (folded.cost_usd, folded.cost_basis) == ("0.5", "reported")
    assert (folded.differing_calls, folded.differing_reported_usd, folded.differing_computed_usd) == (2, "0.35", "0.3")


def test_a_tool_call_that_reports_no_cost_costs_what_the_card_says() -> None:
    events = [run_event("tool_called", tool="search"), run_event("tool_called", tool="search", cost_usd="0.05")]
    timed = [(event, text_of(event.time)) for event in events]
    folded = fold(RunRow(agent="desk", run_id="r-1"), timed, tools={"search": ToolRule(kind="read", cost="0.01")})
    assert (folded.cost_usd, folded.cost_basis) == ("0.06", "estimated")


def test_a_run_without_model_calls_has_no_cost() -> None:
    folded = row(run_event("started", input="x"))
    assert (folded.cost_usd, folded.cost_basis) == (None, None)


@pytest.mark.parametrize("cost", ["9" * 40, "9" * 4000])
def test_an_absurd_cost_counts_as_the_ceiling(cost: str) -> None:
    folded = row(run_event("model_called", model="m", cost_usd=cost), run_event("tool_called", tool="t", cost_usd=cost))
    assert (folded.cost_usd, folded.cost_basis) == ("2000000000000", "reported")


def test_absurd_counts_still_fit_a_column() -> None:
    usage = {"input_tokens": 10**30, "output_tokens": 10**30}
    folded = row(run_event("model_called", model="m", seq=10**30, usage=usage, latency_ms=1e300))
    assert max(folded.input_tokens, folded.output_tokens, folded.model_us) < 2**63


def test_the_last_word_on_the_end_wins_whatever_comes_first() -> None:
    early = run_event("finished", seq=5, resolution="failed", error="broken")
    late = run_event("finished", seq=6, resolution="resolved")
    assert row(early, late).resolution == row(late, early).resolution == "resolved"
    assert row(early, late).error is None


def test_a_time_at_the_edge_of_the_calendar_is_kept() -> None:
    first = datetime.fromisoformat("0001-01-01T00:00:00+23:00")
    assert text_of(first) == "0001-01-01T00:00:00.000000Z"
    assert text_of(datetime(9999, 12, 31, 23, 59, 59, 5, UTC)) == "9999-12-31T23:59:59.000005Z"


@pytest.mark.parametrize(
    ("seconds", "mode", "note"),
    [
        (299, "live", None),
        (3600, "live", "clock 3600 s behind the server, unless the event waited on disk"),
        (-3600, "shadow", "clock 3600 s ahead of the server"),
        (3600, "replay", None),
    ],
)
def test_a_wrong_clock_is_noted(seconds: int, mode: str, note: str | None) -> None:
    assert clock_note(NOON, NOON + timedelta(seconds=seconds), mode) == note


MONEY = st.decimals(0, 100, places=9).map(to_money)
STEP = st.one_of(
    st.fixed_dictionaries(
        {"event": st.just("started"), "input": st.text(max_size=3), "ticket": st.sampled_from(["T", None])}
    ),
    st.fixed_dictionaries({"event": st.just("said"), "by": st.just("agent"), "text": st.text(max_size=3)}),
    st.fixed_dictionaries(
        {"event": st.just("model_called"), "model": st.sampled_from(["openai/gpt-4o", "gpt-4o", "unknown"]),
         "cost_usd": MONEY | st.none(), "usage": st.just({"input_tokens": 3, "output_tokens": 2}) | st.none(),
         "latency_ms": st.floats(0, 1e9) | st.none()}
    ),
    st.fixed_dictionaries({"event": st.just("tool_called"), "tool": st.just("t"), "cost_usd": MONEY | st.none()}),
    st.fixed_dictionaries({"event": st.just("handed_off"), "to": st.just("human"), "reason": st.text(max_size=3)}),
    st.fixed_dictionaries({"event": st.just("finished"), "resolution": st.sampled_from(["resolved", "failed"])}),
)  # fmt: skip
PLACED = st.tuples(STEP, st.integers(0, 4), st.integers(-5, 5), st.sampled_from(["r-1", "r-2"]))


def deliveries(steps: list[Any]) -> list[Received]:
    return [
        received(**step, id=f"e-{place}", seq=seq, at=NOON + timedelta(seconds=seconds), run_id=run_id)
        for place, (step, seq, seconds, run_id) in enumerate(steps)
    ]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = f"sqlite:///{tmp_path_factory.mktemp('fold')}/log.db"
    migrate(url, "logger")
    opened = Database(url)
    yield opened
    opened.close()


def logged(database: Database, batches: list[list[Received]]) -> list[Any]:
    """Every run's row after the batches, in an empty log."""

    def work(conn: Any) -> list[Any]:
        for table in ("logger_events", "logger_runs"):
            conn.exec_driver_sql(f"DELETE FROM {table}")
        for batch in batches:
            store.save(conn, batch)
        return [tuple(row) for row in conn.exec_driver_sql("SELECT * FROM logger_runs ORDER BY run_id")]

    return database.write_now(work)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(PLACED, min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_any_order_with_repeats_and_any_cut_into_batches_gives_the_same_rows(
    database: Database, steps: list[Any], seed: int
) -> None:
    events = deliveries(steps)
    chance = random.Random(seed)
    again = events + chance.choices(events, k=len(events))
    chance.shuffle(again)
    cuts = sorted(chance.choices(range(len(again) + 1), k=3))
    batches = [again[a:b] for a, b in zip([0, *cuts], [*cuts, len(again)], strict=True) if a < b]
    assert logged(database, batches) == logged(database, [events])


def test_a_database_of_the_log_is_where_the_settings_say(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/deep/er/log.db", "logger")
    assert (tmp_path / "deep" / "er" / "log.db").is_file()

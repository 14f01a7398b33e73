"""Retention's decisions: which clock is believed, from when a run is past, and what a removal says of places."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from midwatch.contracts import codec
from midwatch.contracts.governance import HoldLifted, HoldPlaced
from midwatch.runtime.settings import Settings
from midwatch_services.logger.keeping.decide import Clock, HoldRow, Leapt, clock, cutoffs, fold_hold, spans
from midwatch_services.logger.keeping.policy import KeepTooShort, keep_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_the_clock_is_believed_while_events_come_in() -> None:
    assert clock(NOW, NOW - DAY / 2, NOW - DAY, asked=False) == Clock(NOW)


def test_a_clock_years_ahead_counts_a_day_past_the_newest_event() -> None:
    assert clock(NOW + 3650 * DAY, NOW, NOW, asked=False) == Clock(NOW + DAY)


def test_where_events_have_jumped_as_well_a_person_is_asked() -> None:
    ahead = NOW + 3650 * DAY
    assert clock(ahead, ahead, NOW, asked=False) == Leapt(NOW, ahead)
    assert clock(ahead, ahead, NOW, asked=True) == Clock(ahead)


def test_the_first_pass_counts_as_far_as_the_newest_event() -> None:
    assert clock(NOW, NOW, None, asked=False) == Clock(NOW)


def test_an_empty_log_has_no_clock() -> None:
    assert clock(NOW, None, None, asked=True) is None


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(home=tmp_path, **given)


def test_each_agent_is_kept_as_its_card_says_and_others_as_the_setting_does(tmp_path: Path) -> None:
    keep = keep_of(settings(tmp_path, keep_days=500), {"desk": 300 * DAY}.get)
    assert cutoffs(["desk", "other"], keep, NOW) == {
        "desk": "2026-01-26T12:00:00.000000Z", "other": "2025-07-10T12:00:00.000000Z",
    }  # fmt: skip


def test_no_card_keeps_less_than_six_months_nor_less_than_the_stream(tmp_path: Path) -> None:
    by_card = {"desk": timedelta(seconds=1)}.get
    assert keep_of(settings(tmp_path), by_card)("desk") == 183 * DAY
    assert keep_of(settings(tmp_path, runs_max_age_days=190), by_card)("desk") == 190 * DAY


def test_a_setting_below_six_months_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(KeepTooShort) as error:
        keep_of(settings(tmp_path, keep_days=182), {}.get)
    assert str(error.value) == (
        "MIDWATCH_KEEP_DAYS is 182, which is less than the six months that the EU AI Act's Article 26 asks for: "
        "set it to 183 or more."
    )


def test_a_time_before_the_calendar_began_is_the_calendars_first_day(tmp_path: Path) -> None:
    keep = keep_of(settings(tmp_path, keep_days=999_999), {}.get)
    assert cutoffs(["desk"], keep, NOW) == {"desk": "0001-01-01T00:00:00.000000Z"}


def test_what_is_kept_between_breaks_a_span() -> None:
    rows = [(1, False, "a"), (2, False, "b"), (3, False, "a"), (5, True, "a"), (6, False, "a"), (7, False, "b")]
    assert spans(rows) == {"a": [(1, 3, 2), (6, 6, 1)], "b": [(2, 7, 2)]}


def test_where_it_is_not_known_what_is_kept_only_neighbours_make_a_span() -> None:
    assert spans([(1, False, "a"), (2, False, "a"), (4, False, "a")], apart=True) == {"a": [(1, 2, 2), (4, 4, 1)]}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_hold_is_the_same_in_whatever_order_its_events_come(order: tuple[int, int]) -> None:
    placed = codec.envelope(
        "hold", "placed", HoldPlaced(hold_id="h", by="sam", reason="a claim", ticket="T-1"), source="/people/sam",
        id="1", time=NOW,
    )  # fmt: skip
    lifted = codec.envelope(
        "hold", "lifted", HoldLifted(hold_id="h", by="kim", reason="settled"), source="/people/kim", id="2",
        time=NOW + DAY,
    )  # fmt: skip
    row = HoldRow(hold_id="h")
    for at in (*order, *order):
        row = fold_hold(row, (placed, lifted)[at])
    assert (row.placed_by, row.reason, row.ticket, row.lifted_by, row.lifted_reason) == (
        "sam", "a claim", "T-1", "kim", "settled",
    )  # fmt: skip

"""What reviewers said, folded in any order."""

from datetime import timedelta
from itertools import permutations
from typing import Any

from logged import NOON
from midwatch.contracts import codec
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.reviews import ReviewAgreed, ReviewJudged, ReviewSampled
from midwatch_services.logger.reviews import ReviewRow, fold_review


def said(event: str, data: Any, minutes: int) -> Envelope[Any]:
    return codec.envelope("review", event, data, source="/x", id=event, time=NOON + timedelta(minutes=minutes))


EVENTS = [
    said("sampled", ReviewSampled(run_id="r", agent="desk", rate=1, draw=0, day="2026-11-22", key_hash="h"), 0),
    said("agreed", ReviewAgreed(run_id="r", agent="desk", verdict="fail", by=["anna", "ben"]), 2),
    said("judged", ReviewJudged(run_id="r", agent="desk", verdict="pass", by="anna", note="fine"), 3),
]


def test_what_was_agreed_outranks_what_one_said_in_any_order() -> None:
    for order in permutations(EVENTS):
        row = ReviewRow(agent="desk", run_id="r")
        for event in [*order, *order]:
            row = fold_review(row, event)
        assert (row.verdict, row.judged_by, row.note) == ("fail", "anna, ben", None)
        assert (row.sampled_at, row.judged_at) == ("2026-11-22T12:00:00.000000Z", "2026-11-22T12:02:00.000000Z")


def test_what_one_person_said_is_not_told_before_it_is_settled() -> None:
    row = fold_review(fold_review(ReviewRow(agent="desk", run_id="r"), EVENTS[2]), EVENTS[0])
    assert (row.verdict, row.judged_by, row.note) == (None, None, None)
    assert row.judged_at == "2026-11-22T12:03:00.000000Z"


def test_a_run_that_was_drawn_has_no_verdict_yet() -> None:
    assert fold_review(ReviewRow(agent="desk", run_id="r"), EVENTS[0]).verdict is None

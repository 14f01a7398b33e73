"""What reviewers agreed on of a run, folded from their events in any order. Pure: no clock, no database.

A register is filled by the event with the least or greatest key (time, id). Of what one person judged only the time is
kept: whoever judges the run next is not to know what was said of it.
"""

import msgspec

from midwatch.contracts.envelope import Envelope
from midwatch.contracts.reviews import ReviewAgreed, ReviewJudged, ReviewSampled

from .decide import text_of

_FIRST, _LAST = "~", ""  # keys after every other and before every other: digits come between

Review = ReviewSampled | ReviewJudged | ReviewAgreed


class ReviewRow(msgspec.Struct, kw_only=True):
    """What is known of the review of one run. `sampled_at`: when it was drawn; None where nobody drew it. Before it is
    settled there is no verdict."""

    agent: str
    run_id: str
    sampled_key: str = _FIRST
    sampled_at: str | None = None
    judged_key: str = _LAST
    judged_at: str | None = None
    judged_by: str | None = None
    verdict: str | None = None
    note: str | None = None


def fold_review(row: ReviewRow, event: Envelope[Review]) -> ReviewRow:
    """The row with the event in it; folding an event twice changes nothing."""
    row = msgspec.structs.replace(row)
    data, at = event.data, text_of(event.time)
    key = f"{at} {event.id}"
    if isinstance(data, ReviewSampled):
        if key < row.sampled_key:
            row.sampled_key, row.sampled_at = key, at
        return row
    agreed = isinstance(data, ReviewAgreed)
    key = f"{int(agreed)} {key}"
    if key > row.judged_key:
        row.judged_key, row.judged_at = key, at
        if isinstance(data, ReviewAgreed):
            row.verdict, row.note, row.judged_by = data.verdict, data.note or None, ", ".join(data.by)
    return row

"""How long a digest may be, what goes first, which days are due, and that its prose is prose."""

import re
from datetime import UTC, date, datetime, time

import pytest

from digest_helpers import DAY, facts, run, runs, week, write
from midwatch_services.digest import decide
from midwatch_services.digest.decide import count_words
from midwatch_services.digest.policy import Policy
from midwatch_services.digest.readability import grade


def test_the_sections_stand_in_the_order_of_what_needs_a_person() -> None:
    digest = write(facts(runs=runs(resolved=3, failed=1), past=week(1, 1, 1, 1, 1, 1, 1, resolved=7)))
    assert digest.headings == [
        "What went wrong and was stopped", "What waits for a person", "What changed since last week", "What it cost",
        "Runs most worth reading",
    ]  # fmt: skip
    assert digest.title == "Desk: Wednesday, 25 November 2026"
    assert digest.lead[0].text == "4 runs began on this day: 3 settled and 1 failed."


def test_a_log_that_is_behind_is_said_to_be_so_first() -> None:
    for some in ((), runs(resolved=1)):
        lead = write(facts(runs=some, is_behind=True)).lead
        assert lead[1].text == "The run log was not complete when this was written, so runs may be missing here."


def test_the_hour_of_a_day_is_the_next_mornings() -> None:
    policy = Policy(zone="America/New_York", at=time(7))
    assert decide.hour_of(date(2026, 11, 25), policy) == datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_a_day_without_runs_is_a_digest_that_says_so() -> None:
    digest = write(facts())
    assert [one.text for one in digest.lead] == ["No run of desk began on this day."]
    assert digest.headings == ["What waits for a person"]
    assert all(one.sources for one in digest.sentences)


@pytest.mark.parametrize("limit", [100, 150, 300, 2000])
def test_what_does_not_fit_is_left_out_from_the_end_and_said(limit: int) -> None:
    some = tuple(run(number, "failed" if number % 7 else "resolved", tool_errors=number) for number in range(50))
    tools = {one.key: (f"tool_{'abcdefghijklmnopqrstuvwxyz'[place % 26]}",) for place, one in enumerate(some)}
    whole, cut = write(facts(runs=some, tools=tools)), write(facts(runs=some, tools=tools), words=limit)
    assert cut.words <= limit
    if whole.words <= limit:
        assert cut == whole
        return
    inner = [one.text for part in whole.sections for one in part.sentences]
    kept = [one.text for part in cut.sections for one in part.sentences]
    assert kept == inner[: len(kept)], "the most important stays"
    assert cut.closing[0].text == f"To stay within {limit} words, {len(inner) - len(kept)} lines were left out."


def test_the_words_are_all_that_is_read() -> None:
    digest = write(facts(runs=runs(resolved=2)))
    assert digest.words == count_words(" ".join([digest.title, *digest.headings, *(s.text for s in digest.sentences)]))
    assert count_words("It cost $1.20 – at least; 12 %.") == 6


@pytest.mark.parametrize(
    ("now", "days"),
    [
        (datetime(2026, 11, 26, 6, 59, tzinfo=UTC), [23, 24]),
        (datetime(2026, 11, 26, 7, 0, tzinfo=UTC), [24, 25]),
        (datetime(2026, 11, 26, 23, 0, tzinfo=UTC), [24, 25]),
    ],
)
def test_yesterday_is_due_from_the_hour_on_and_two_days_are_caught_up(now: datetime, days: list[int]) -> None:
    assert decide.due(now, Policy(at=time(7))) == [date(2026, 11, day) for day in days]


def test_the_hour_and_the_day_are_the_time_zones() -> None:
    policy = Policy(zone="America/New_York", at=time(7))
    assert decide.due(datetime(2026, 11, 26, 11, 59, tzinfo=UTC), policy)[-1] == date(2026, 11, 24)
    assert decide.due(datetime(2026, 11, 26, 12, 0, tzinfo=UTC), policy)[-1] == date(2026, 11, 25)
    begin, end = decide.bounds(date(2026, 3, 8), "America/New_York")  # a day of 23 hours
    assert (begin.astimezone(UTC).hour, end.astimezone(UTC).hour) == (5, 4)
    assert "by the time of New York" in write(facts(zone="America/New_York")).closing[-1].text


def test_the_prose_names_no_field_and_no_id() -> None:
    some = tuple(
        run(
            number, end, agent="llm_agent", error="tool_error in get_order: #W2378156", tool_errors=1, halted_by="ops_1"
        )
        for number, end in enumerate(("halted", "failed", "handed_off", "fell_back", "abandoned", "resolved", None))
    )
    asked = {one.key: "cancel XEHM4B for mia_li_3668" for one in some}
    digest = write(facts(agent=None, runs=some, asked=asked, tools={some[0].key: ("issue_refund",)}, day=DAY))
    prose = " ".join([digest.title, *digest.headings, *(one.text for one in digest.sentences)])
    assert not re.search(r"\w+_\w+", prose), prose
    assert not any(one.run_id in prose for one in some)
    assert not re.search(r"XEHM4B|W2378156", prose)
    assert grade(one.text for one in digest.sentences) <= 9

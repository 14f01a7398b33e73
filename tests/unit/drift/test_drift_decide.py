"""What is called a change, and what is called chance, a trifle, or too little to tell."""

import random
from datetime import date, timedelta
from typing import Any

from drift_helpers import facts, some
from midwatch_services.drift.decide import Comparison, Finding, Verdict, judge
from midwatch_services.drift.facts import Facts


def days(recent: list[Facts], baseline: list[Facts]) -> Verdict:
    (verdict,) = judge([Comparison("days", tuple(recent), tuple(baseline), "the 28 days before")])
    return verdict


def only(recent: list[Facts], baseline: list[Facts]) -> Finding:
    (finding,) = days(recent, baseline).findings
    return finding


def share(count: int, **fields: Any) -> Any:
    """The first `count` runs differ so."""
    return lambda n: fields if n < count else {}


BEFORE = "2026-11-20"


def test_hand_offs_that_rose_are_said_with_both_shares_and_shown_by_runs_that_were_handed_off() -> None:
    recent = some(100, "now", made=share(31, handed_off=True))
    finding = only(recent, some(200, "then", BEFORE, share(24, handed_off=True)))
    assert finding.sentence == "Hand-offs rose from 12 % to 31 % of runs"
    assert finding.test == "Fisher's exact test"
    assert (finding.recent, finding.baseline, finding.recent_runs, finding.baseline_runs) == (0.31, 0.12, 100, 200)
    assert finding.runs == ["now-30", "now-29", "now-28", "now-27", "now-26"]
    assert finding.p < finding.q < 0.01


def test_below_the_least_number_nothing_is_said_and_nothing_has_passed() -> None:
    verdict = days(some(19, "now", handed_off=True), some(500, "then", BEFORE))
    assert (verdict.phase, verdict.recent_runs, verdict.least, verdict.tests) == ("inconclusive", 19, 20, 0)
    assert days(some(500, "now", handed_off=True), some(19, "then", BEFORE)).phase == "inconclusive"
    assert days(some(20, "now"), some(20, "then", BEFORE)).phase == "passed"


def test_a_trifle_in_much_data_is_no_finding() -> None:
    recent = some(1400, "now", made=share(700, handed_off=True))
    baseline = some(1400, "then", BEFORE, share(580, handed_off=True))
    assert days(recent, baseline).phase == "passed"  # 50 % against 41 %, which chance does once in a million days


def test_runs_of_one_ticket_count_once() -> None:
    recent = some(60, "now", made=lambda n: {"ticket": f"T-{n // 30}", "handed_off": n < 30})
    verdict = days(recent, some(60, "then", BEFORE))
    assert (verdict.phase, verdict.recent_runs) == ("inconclusive", 2)


def test_a_cost_that_is_not_known_is_not_nought() -> None:
    recent = some(40, "now", made=share(20, cost=None))
    baseline = some(40, "then", BEFORE, share(20, cost=None))
    assert days(recent, baseline).phase == "passed"


def test_a_share_of_unknown_costs_that_changes_is_said_as_such() -> None:
    finding = only(some(40, "now", made=share(30, cost=None)), some(40, "then", BEFORE))
    assert finding.sentence == "The cost is known of fewer runs: 25 %, before 100 %"


def test_figures_are_said_by_their_middle() -> None:
    recent = some(40, "now", made=lambda n: {"cost": 0.0211 + n / 100_000})
    baseline = some(40, "then", BEFORE, lambda n: {"cost": 0.0151 + n / 100_000})
    finding = only(recent, baseline)
    assert finding.sentence == "Runs cost 39 % more: $0.0212 in the middle, before $0.0152"
    assert (finding.cause, finding.test, finding.distance) == ("cost", "Kolmogorov-Smirnov test", 1.0)
    assert finding.runs[0] == "now-39"


def test_a_middle_that_stands_while_the_end_moves_is_said_by_its_end() -> None:
    recent = some(60, "now", made=lambda n: {"seconds": 300.0 if n >= 36 else 30.0})
    finding = only(recent, some(60, "then", BEFORE))
    assert finding.sentence == "Runs take 10.0 times as long: 5 min in the highest tenth, before 30 s"


def test_how_runs_end_is_one_test_and_the_name_that_changed_most_is_said() -> None:
    recent = some(60, "now", made=lambda n: {"resolution": ("failed", "abandoned", "resolved")[n % 3]})
    baseline = some(60, "then", BEFORE, lambda n: {"resolution": "abandoned" if n % 3 == 0 else "resolved"})
    finding = only(recent, baseline)
    assert finding.sentence == "Runs that failed rose from 0 % to 33 %"
    assert finding.test == "chi-square test"


def test_hand_offs_are_not_said_twice() -> None:
    made = share(30, handed_off=True, resolution="handed_off")
    assert [one.cause for one in days(some(60, "now", made=made), some(60, "then", BEFORE)).findings] == ["hand_offs"]


def test_a_tool_that_is_new_and_one_that_is_gone_and_one_that_is_used_more() -> None:
    def sentence(now: int, then: int) -> str:
        tools = {"tools": {"lookup_order": 1, "refund": 2}}
        plain = {"tools": {"lookup_order": 3}}
        recent = some(50, "now", made=lambda n: tools if n < now else plain)
        baseline = some(50, "then", BEFORE, lambda n: tools if n < then else plain)
        return only(recent, baseline).sentence

    assert sentence(20, 0) == "A tool is new: refund, in 40 % of runs"
    assert sentence(0, 20) == "A tool is no longer used: refund, before in 40 % of runs"
    assert sentence(40, 10) == "The tool refund is used more often: in 80 % of runs, before 20 %"


def test_words_are_said_as_customers_write_them_and_compared_by_their_stems() -> None:
    recent = some(50, "now", made=lambda n: {"words": {"refund": "refunds" if n % 3 else "refund"} if n < 30 else {}})
    baseline = some(50, "then", BEFORE, lambda n: {"words": {"refund": "refund"} if n < 4 else {}})
    assert only(recent, baseline).sentence == "Customers write about 'refunds' more often: 60 % of runs, before 8 %"


def test_a_word_is_told_only_where_five_customers_or_more_wrote_it() -> None:
    def told(of: Any) -> list[str]:
        recent = some(60, "now", made=lambda n: {"words": {"jones": "jones"}, **of(n)} if n < 30 else {})
        return [one.name for one in days(recent, some(60, "then", BEFORE, words={})).findings if one.name == "jones"]

    assert told(lambda n: {"customer": f"c-{n % 5}", "ticket": f"T-{n}"}) == ["jones"]
    assert told(lambda n: {"customer": f"c-{n % 4}", "ticket": f"T-{n}"}) == []
    assert told(lambda n: {"ticket": f"T-{n}"}) == ["jones"], "a ticket counts as a customer where nobody names one"


def test_of_a_hundred_words_that_changed_the_ten_that_changed_most_are_said() -> None:
    many = [f"word{chr(97 + n // 10)}{chr(97 + n % 10)}" for n in range(100)]
    recent = some(100, "now", made=lambda n: {"words": {word: word for word in many[n:]}})
    findings = days(recent, some(100, "then", BEFORE, words={})).findings
    assert [one.name for one in findings] == many[-1:-11:-1]


def test_languages_are_compared_where_they_are_known() -> None:
    recent = some(60, "now", made=lambda n: {"language": "de" if n < 20 else "unknown" if n < 30 else "en"})
    baseline = some(60, "then", BEFORE, lambda n: {"language": "unknown" if n < 20 else "en"})
    assert only(recent, baseline).sentence == "Customers write in German more often: 40 % of runs, before 0 %"


def test_both_comparisons_are_corrected_together() -> None:
    recent, baseline = some(40, "now", made=share(14, handed_off=True)), some(40, "then", BEFORE)
    (alone,) = judge([Comparison("days", tuple(recent), tuple(baseline))])
    calm = Comparison("version", tuple(some(40, "v2")), tuple(some(40, "v1", BEFORE)), "1")
    both = judge([Comparison("days", tuple(recent), tuple(baseline)), calm])
    assert [one.phase for one in both] == ["failed", "passed"]
    assert both[0].findings[0].q > alone.findings[0].q
    assert both[0].findings[0].p == alone.findings[0].p


def test_a_jump_is_told_from_a_slow_rise() -> None:
    def grown(step: bool) -> Finding:
        baseline, draw = [], random.Random(3)
        for back in range(28, 0, -1):
            day = (date(2026, 11, 21) - timedelta(days=back)).isoformat()
            level = (10 if back > 9 else 20) if step else 10 + 10 * (28 - back) / 28
            baseline += some(10, f"d{back}", day, lambda n, level=level: {"messages": round(draw.gauss(level, 2))})
        recent = some(30, "now", made=lambda n: {"messages": round(draw.gauss(20, 2))})
        return next(one for one in days(recent, baseline).findings if one.name == "messages")

    assert (grown(True).onset, grown(True).onset_day) == ("sudden", "2026-11-12")
    assert (grown(False).onset, grown(False).onset_day) == ("slow", None)


def test_what_every_saturday_does_is_a_rhythm() -> None:
    saturday = date(2026, 11, 21)

    def month(on_saturdays: int) -> list[Facts]:
        return [
            run
            for back in range(28, 0, -1)
            for run in some(
                20, f"d{back}", (saturday - timedelta(days=back)).isoformat(),
                share(on_saturdays if back % 7 == 0 else 2, handed_off=True),
            )
        ]  # fmt: skip

    recent = some(40, "now", made=share(20, handed_off=True))
    assert days(recent, month(2)).phase == "failed"
    assert days(recent, month(10)).phase == "passed"


def test_names_of_tools_are_cut_and_cleaned() -> None:
    evil = "\x1b[31m\n" + "x" * 200 + "\u202e"
    recent = some(40, "now", made=share(20, tools={"lookup_order": 1, evil: 1}))
    found = days(recent, some(40, "then", BEFORE)).findings
    sentence = next(one.sentence for one in found if one.cause == "tools")
    assert sentence.isprintable()
    assert sentence == "A tool is new: [31m " + "x" * 34 + "…, in 50 % of runs"


def test_the_same_runs_give_the_same_verdict_in_whatever_order() -> None:
    recent = some(60, "now", made=share(20, handed_off=True, cost=None, words={"refund": "refund"}))
    baseline = some(90, "then", BEFORE)
    shuffled = random.Random(1).sample(recent, 60), random.Random(2).sample(baseline, 90)
    assert days(recent, baseline) == days(*shuffled)


def test_one_run_is_as_its_facts_say() -> None:
    run = facts("r-1", messages=0, answers=0, characters=0)
    assert (run.day, run.calls, run.answer) == ("2026-11-21", 1, None)

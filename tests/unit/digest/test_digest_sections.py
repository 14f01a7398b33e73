"""What each section says, sentence by sentence, against hand-written expectations."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from digest_helpers import SEVEN, facts, run, runs, section, week, write
from midwatch_services.digest.facts import Alert, Case, Cases, Change, Reviews, Source

WRONG, WAITS, CHANGED, COST, READ = "What went wrong", "What waits", "What changed", "What it cost", "Runs most"


def alert(number: int = 1, *, rule: str = "budget_run", action: str = "halted_run", **fields: Any) -> Alert:
    given = {"agent": "desk", "severity": "page", "run_id": f"r-{number}",
             "raised_at": datetime(2026, 11, 25, 10, number, tzinfo=UTC), **fields}  # fmt: skip
    return Alert(alert_id=f"a-{number}", rule=rule, action=action, **given)


# What went wrong


def test_a_day_on_which_nothing_went_wrong_says_so() -> None:
    assert section(write(facts(runs=runs(resolved=2))), WRONG) == [
        "Nothing went wrong that the watch would see, and nothing was stopped."
    ]


def test_stops_of_one_cause_are_one_sentence_with_who_took_them_on() -> None:
    found = facts(
        runs=runs(halted=3, resolved=1),
        alerts=(alert(0, acknowledged_by="ann"), alert(1), alert(2, acknowledged_by="ann")),
    )
    digest = write(found)
    assert section(digest, WRONG) == [
        "3 runs of desk were stopped because they had spent all that one run may cost.",
        "Ann took 2 of them on.",
    ]
    first, second = digest.sections[0].sentences
    assert first.sources == tuple(Source("run", "desk", f"r-{number}") for number in range(3))
    assert second.sources == (Source("run", "desk", "r-0"), Source("run", "desk", "r-2"))


def test_one_stop_is_told_in_the_singular() -> None:
    found = facts(runs=runs(halted=2), alerts=(alert(1, rule="loop_no_new_state", acknowledged_by="ann"),))
    assert section(write(found), WRONG) == [
        "1 run of desk was stopped because it went in circles and learnt nothing new.",
        "Ann took it on.",
        "1 run was stopped by the stop switch.",
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"action": "would_halt_run"},
         "1 run of desk would have been stopped because it had spent all that one run may cost."),
        ({"action": "halted_agent", "rule": "tripped", "run_id": None},
         "The agent desk was stopped because too much went wrong at once."),
        ({"action": "halted_fleet", "rule": "budget_fleet_day", "run_id": None, "agent": "_fleet"},
         "All agents were stopped because the money of the whole shop for the day was spent."),
        ({"action": "none", "rule": "not_armed", "run_id": None},
         "There was 1 warning on desk because a running copy does not follow the stop switch; nothing was stopped."),
        ({"action": "none", "rule": "made_elsewhere"},
         "There was 1 warning on desk for a reason that this digest has no words for yet; nothing was stopped."),
    ],
)  # fmt: skip
def test_each_kind_of_alert_has_its_sentence(fields: dict[str, Any], text: str) -> None:
    assert section(write(facts(runs=runs(resolved=2), alerts=(alert(1, **fields),))), WRONG) == [text]


def test_what_is_only_for_the_record_is_not_told() -> None:
    assert section(write(facts(runs=runs(resolved=2), alerts=(alert(1, severity="info", action="none"),))), WRONG) == [
        "Nothing went wrong that the watch would see, and nothing was stopped."
    ]


def test_ends_that_are_no_success_are_told_with_what_tools_did() -> None:
    found = facts(
        runs=(
            run(0, "failed", error="timeout of the model"), run(1, "failed", error="timeout of the model"),
            run(2, "failed", error="no such order"), run(3, "fell_back"), run(4, "abandoned"), run(5, "abandoned"),
            run(6, "halted", halted_by="ann"), run(7, tool_errors=3), run(8, tool_errors=1),
        )
    )  # fmt: skip
    assert section(write(found), WRONG) == [
        "1 run was stopped by ann.",
        "In 1 run the customer went on with the stand-in of a stopped agent.",
        "3 runs failed.",
        "The reason in 2 of them: “Timeout of the model”.",
        "2 runs broke off: the customer left, or the program did.",
        "A tool failed in 2 runs, 4 times in all.",
    ]


# What waits


def test_nothing_that_waits_is_said_to_be_nothing() -> None:
    assert section(write(facts(runs=runs(resolved=1))), WAITS) == [
        "No case waits for a person.",
        "No alert waits for somebody to take it on.",
        "No run waits for a reviewer.",
        "Promises made to customers are not tracked yet, so none are listed here.",
    ]


def test_what_cannot_be_read_is_said_to_be_unknown() -> None:
    assert section(write(facts(cases=None, reviews=None)), WAITS)[:3] == [
        "It is not known which cases wait for a person: their list could not be read.",
        "No alert waits for somebody to take it on.",
        "It is not known how many runs wait for a reviewer: their list could not be read.",
    ]


def test_cases_alerts_reviews_and_runs_without_an_end_wait() -> None:
    waiting = (
        Case("case-1", "desk", "r-1", SEVEN - timedelta(hours=5), "Where is my refund?"),
        Case("case-2", "desk", "r-2", SEVEN - timedelta(minutes=50)),
    )
    held = (Case("case-3", "desk", "r-3", SEVEN, "Hi"),)
    found = facts(
        cases=Cases(2, waiting, 1, held, ("bob",)), reviews=Reviews(1, (("desk", "r-4"),)),
        open_alerts=(alert(1, raised_at=SEVEN - timedelta(days=3)),
                     alert(2, rule="velocity", raised_at=SEVEN - timedelta(hours=3)),
                     alert(3, rule="velocity", raised_at=SEVEN - timedelta(hours=2))),
        unended=(run(5, None, handed_off_to="human", seconds=None), run(6, None, seconds=None),
                 run(7, None, seconds=None)),
    )  # fmt: skip
    digest = write(found)
    assert section(digest, WAITS)[:-1] == [
        "2 cases wait for a person.",
        "A customer of desk who wrote “Where is my refund?” has waited for 5 hours.",
        "A customer of desk has waited for 50 minutes.",
        "1 case is in hand with bob.",
        "Nobody has taken on an alert on desk, open for 3 days, because it had spent all that one run may cost.",
        "Nobody has taken on 2 alerts on desk, the oldest open for 3 hours, because it spent far faster than is usual.",
        "1 run waits for a reviewer.",
        "1 run was handed over and has no end on record.",
        "2 runs of the last seven days have begun and not ended.",
    ]
    waits = next(part for part in digest.sections if part.heading.startswith(WAITS))
    assert waits.sentences[1].sources == (Source("case", "desk", "case-1"),)


# What changed


def test_without_a_week_before_nothing_is_compared() -> None:
    assert section(write(facts(runs=runs(resolved=40))), CHANGED) == [
        "There were no runs in the seven days before, so there is nothing to compare with."
    ]


def test_too_few_runs_say_nothing_of_shares() -> None:
    found = facts(runs=runs(resolved=29), past=week(20, 30, 30, 30, 30, 30, 40, resolved=210))
    assert section(write(found), CHANGED) == [
        "29 runs began; in the week before it was 30 a day, and 20 on the Wednesday before.",
        "29 runs against 210 runs in the seven days before are too few runs to say more.",
    ]
    found = facts(runs=runs(resolved=90), past=week(0, 0, 0, 0, 0, 0, 3, resolved=3))
    assert section(write(found), CHANGED) == [
        "90 runs began, more than on any day of that week; in the week before it was fewer than 1 a day, and 0 on the "
        "Wednesday before.",
        "90 runs against 3 runs in the seven days before are too few runs to say more.",
    ]


def test_a_sure_change_of_a_share_is_told_from_one_that_chance_can_make() -> None:
    past = week(
        100, 100, 100, 100, 100, 100, 100, priced=700, cost="70", resolved=616, handed_off=84
    )  # 12 % handed over
    found = facts(runs=runs(resolved=66, handed_off=31, failed=3), past=past)
    assert section(write(found), CHANGED) == [
        "100 runs began; in the week before it was 100 a day, and 100 on the Wednesday before.",
        "The share of runs that the agent settled fell from 88 % to 66 %.",
        "The share of runs handed over rose from 12 % to 31 %.",
        "The share of runs that failed rose from 0 % to 3 %.",
        "Where it is known, a run cost $0.10 on average, much as before ($0.10).",
        "Runs are about as fast as before: half of the runs took no longer than 60 seconds; then it was 60 seconds.",
    ]


def test_cost_and_speed_change_by_a_fifth_before_it_is_said() -> None:
    past = week(10, 10, 10, 10, 10, 10, 40, priced=100, cost="5", seconds=200.0, resolved=100)
    found = facts(runs=runs(resolved=40), past=past)
    assert section(write(found), CHANGED)[1:] == [
        "The share of runs that the agent settled is the same as in the week before: 100 %.",
        "Where it is known, the cost of a run rose from $0.0500 to $0.10 on average.",
        "Runs are faster than before: half of the runs took no longer than 60 seconds; then it was 3 minutes.",
    ]
    unknown = tuple(run(number, cost_usd=None, cost_basis=None) for number in range(40))
    assert "Too few runs have a known cost to say what changed in that." in section(
        write(facts(runs=unknown, past=past)), CHANGED
    )


def test_findings_of_drift_stand_with_what_changed_as_they_were_worded() -> None:
    change = Change("Hand-offs rose from 12 % to 31 % over four weeks.", (("desk", "r-1"),))
    digest = write(facts(runs=runs(resolved=2), changes=(change,)))
    assert section(digest, CHANGED)[-1] == "Hand-offs rose from 12 % to 31 % over four weeks."


def test_the_shop_tells_of_each_agent() -> None:
    some = (*(run(number, agent="desk") for number in range(3)), run(9, "failed", agent="post_room"))
    digest = write(facts(agent=None, runs=some))
    assert section(digest, CHANGED)[-2:] == ["Desk had 3 runs: 3 settled.", "Post-room had 1 run: 1 failed."]
    assert digest.lead[0].text == "4 runs of 2 agents began on this day: 3 settled and 1 failed."


# What it cost


def test_the_sum_says_what_it_rests_on() -> None:
    some = (
        run(0, cost_usd=Decimal("1.50")), run(1, cost_usd=Decimal("0.25"), cost_basis="priced"),
        run(2, cost_usd=Decimal("0.10"), cost_basis="unpriced", unpriced_calls=2),
        run(3, cost_usd=None, cost_basis="unpriced", unpriced_calls=1),
        run(4, cost_usd=None, cost_basis=None, model_calls=0),
    )  # fmt: skip
    assert section(write(facts(runs=some, budget_usd=Decimal(40))), COST) == [
        "The day cost at least $1.85.",
        "Of this, $1.50 was reported with the answers.",
        "Of this, $0.25 was worked out from price lists.",
        "In 1 run there were 2 calls of a model with no known price, so the cost is a part only.",
        "What 2 runs cost is not known at all.",
        "That is at least 4 % of the $40.00 that desk may spend in a day.",
    ]


def test_nothing_known_is_not_nothing_spent() -> None:
    blank = (run(0, cost_usd=None, cost_basis="unpriced"), run(1, cost_usd=Decimal(0), cost_basis="unpriced"))
    assert section(write(facts(runs=blank)), COST) == ["What the day cost is not known."]
    free = (run(0, cost_usd=Decimal(0)),)
    assert section(write(facts(runs=free)), COST) == ["No run cost anything."]


def test_the_dearest_runs_are_named() -> None:
    some = tuple(run(number, cost_usd=Decimal(number)) for number in range(1, 6))
    digest = write(facts(runs=some))
    assert section(digest, COST) == [
        "The day cost $15.00.", "All of it was reported with the answers.",
        "The three dearest runs cost $5.00, $4.00 and $3.00.",
    ]  # fmt: skip
    assert digest.sections[3].sentences[2].sources == tuple(Source("run", "desk", f"r-{n}") for n in (5, 4, 3))


# Runs to read


def test_runs_are_chosen_for_risk_and_variety_and_always_the_same() -> None:
    some = (
        run(0), run(1, "failed", tool_errors=2), run(2, "handed_off", handed_off_to="human"), run(3, "halted"),
        run(4, cost_usd=Decimal(9), seconds=4000.0), run(5), run(6),
        run(7, "handed_off", handed_off_to="agent:post_room"),
    )  # fmt: skip
    asked = {one.key: f"Point {word}" for one, word in zip(some, "abcdefgh", strict=True)}
    found = facts(
        runs=some, alerts=(alert(3),), asked=asked, tools={("desk", "r-6"): ("issue_refund",), ("desk", "r-5"): ()}
    )
    texts = section(write(found), READ)
    assert texts == section(
        write(facts(**{name: getattr(found, name) for name in ("runs", "alerts", "asked", "tools")})), READ
    )
    assert texts == [
        "Stopped, as it had spent all that one run may cost. A customer wrote “Point d”; it was stopped after "
        "60 seconds, for $0.10.",
        "The one in which tools failed most. A customer wrote “Point b”; it failed after 60 seconds, for $0.10.",
        "A customer wrote “Point c”; a person was to take it on after 60 seconds, for $0.10.",
        "A customer wrote “Point a”; the agent settled it after 60 seconds, for $0.10.",
        "The dearest, the slowest. A customer wrote “Point e”; the agent settled it after 67 minutes, for $9.00.",
        "A customer wrote “Point h”; it went on to post-room after 60 seconds, for $0.10.",
        "With the tool issue refund. A customer wrote “Point g”; the agent settled it after 60 seconds, for $0.10.",
    ]


def test_a_run_is_told_without_what_is_not_known() -> None:
    blank = run(0, None, seconds=None, cost_usd=None, cost_basis=None)
    assert section(write(facts(runs=(blank,))), READ) == [
        "A customer wrote nothing that is on record; it has no end yet, at an unknown cost."
    ]


def test_a_digest_knows_every_run_that_it_names_or_quotes() -> None:
    failed = tuple(run(number, "failed", error="the shop does not answer") for number in range(5))
    resolved = tuple(run(number, "resolved") for number in range(10, 40))
    case = Case("case-1", "desk", "r-old", SEVEN, asked="Where is it?")
    digest = write(facts(runs=failed + resolved, cases=Cases(1, (case,))))
    named = {run_id for _, run_id in digest.runs}
    assert {"r-0", "r-1", "r-2", "r-3", "r-4", "r-old"} <= named, "all five gave the reason that is quoted"
    assert named < {one.run_id for one in failed + resolved} | {"r-old"}, "not those that are only counted"

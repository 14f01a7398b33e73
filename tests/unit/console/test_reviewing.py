"""What is read of a reviewer's form, how far one is, and the order of eval cases."""

from datetime import UTC, datetime

import pytest
from starlette.datastructures import FormData, QueryParams

from eval_helpers import a_case
from gate_helpers import case as result
from midwatch_services.console import eval_rows, reviewing
from midwatch_services.console.reviewing import Far, Wish

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def form(*fields: tuple[str, str]) -> FormData:
    return FormData(list(fields))


def test_reasons_are_of_a_fail_alone_and_each_counts_once() -> None:
    both = (("reason", "tone"), ("reason", "tone"), ("reason", "wrong_fact"))
    assert reviewing.said_of(form(("verdict", "fail"), *both), NOW).reasons == ("tone", "wrong_fact")
    assert reviewing.said_of(form(("verdict", "pass"), *both), NOW).reasons == ()
    assert reviewing.said_of(form(("verdict", "great")), NOW).verdict == ""
    made = reviewing.said_of(form(("verdict", "case"), *both), NOW)
    assert (made.verdict, made.makes_case) == ("fail", True)


@pytest.mark.parametrize(
    ("seconds", "began", "found"),
    [
        ("41.52", "0", 41.5),
        ("", str(NOW.timestamp() - 90), 90.0),
        ("nan", str(NOW.timestamp() - 90), 90.0),
        ("-1", str(NOW.timestamp() + 90), None),
        ("1e9", "0", None),
        ("", "", None),
    ],
)
def test_seconds_are_those_in_sight_else_those_since_the_page_was_made(
    seconds: str, began: str, found: float | None
) -> None:
    assert reviewing.seconds({"seconds": seconds, "began": began}, NOW) == found


def test_an_address_carries_on_what_was_skipped_and_nothing_that_makes_no_sense() -> None:
    wish = reviewing.wish_of(QueryParams("agent=desk&run=r-1&skip=a&skip=b%26c&skip=a&skip="))
    assert wish == Wish("desk", "r-1", ("a", "b&c"))
    assert wish.address(skip=["d"]) == "/review?skip=a&skip=b%26c&skip=d"  # it was chosen; the next is of any agent
    assert wish.of("desk", "r-1") == "/review?agent=desk&run=r-1&skip=a&skip=b%26c"
    assert reviewing.wish_of(QueryParams("agent=desk&run=r-1&only=desk")).address() == "/review?agent=desk"
    assert reviewing.wish_of(QueryParams("agent=../x")) == Wish()
    assert reviewing.next_of(form(("only", ""), ("agent", "desk"), ("run", "r-1"))) == Wish()
    many = Wish(skip=tuple(f"r-{number}" for number in range(60)))
    assert many.address(skip=["last"]).count("skip=") == 50


def test_how_far_one_is_counts_this_run_among_those_that_are_due() -> None:
    assert reviewing.far(6, 6, 150.0) == Far(place=7, total=12, minutes=15, is_due=True)
    assert reviewing.far(12, 0, 150.0) == Far(place=13, total=12, minutes=0, is_due=False)
    assert reviewing.far(0, 1, 10.0).minutes == 1


def test_what_got_worse_comes_first_and_a_case_that_changed_since_tells_nothing() -> None:
    cases = [a_case(name) for name in ("kept", "new", "fell", "failing")]
    twin = a_case("kept-typos", twin_of="kept", perturbation="typos")
    hashes = {one.name: one.hash for one in [*cases, twin]} | {"new": "another"}
    letters = {"kept": "p", "new": "p", "fell": "f", "failing": "f", "kept-typos": "f"}
    found = {name: result(name, letter, hash=hashes[name]) for name, letter in letters.items()}
    rows = eval_rows.rows([*cases, twin], lambda case: (False, "two"), found, ["fell"])
    assert [(row.case.name, row.state) for row in rows] == [
        ("fell", "regression"), ("failing", "failed"), ("new", "unknown"), ("kept", "passed"),
    ]  # fmt: skip
    assert [row.twins_failed for row in rows] == [0, 0, 0, 1]

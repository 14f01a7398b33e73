"""What the address of a search asks."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from midwatch_services.console.search import packed, parse, unpacked

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def test_every_filter_is_understood_and_asked_again_by_the_same_address() -> None:
    given = {
        "agent": " desk ", "cost_over": "$0.50", "slower_than": "90s", "since": "7d", "until": "2026-11-26T10:00",
        "text": '"gift card"', "nonsense": "x", "mode": "",
    }  # fmt: skip
    found = parse(given, NOW, "Europe/Berlin")
    assert (found.wrong, found.word("agent"), found.cost_over) == ({}, "desk", Decimal("0.50"))
    assert found.slower_than == timedelta(seconds=90)
    assert found.since == datetime(2026, 11, 19, 12, 0, tzinfo=UTC)
    assert found.until == datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
    assert found.address(before="") == (
        "text=%22gift+card%22&agent=desk&cost_over=%240.50&slower_than=90s&since=7d&until=2026-11-26T10%3A00"
    )


def test_what_cannot_be_asked_is_named_and_the_rest_is_kept() -> None:
    given = {"cost_over": "much", "since": "soon", "mode": "dead", "agent": "x" * 501, "ticket": "T-1"}
    found = parse(given, NOW, "UTC")
    assert found.wrong == {
        "agent": "long", "mode": "choice", "cost_over": "amount",
        "since": "time",
    }  # fmt: skip
    assert found.word("ticket") == "T-1"


@pytest.mark.parametrize("text", ["99999999999d", "0001-01-01T00:00+14:00x", "9" * 400 + "d"])
def test_a_time_that_there_is_not_is_no_error_of_ours(text: str) -> None:
    assert "since" in parse({"since": text}, NOW, "UTC").wrong


def test_a_place_in_a_list_comes_back_and_nothing_else_does() -> None:
    place = ("2026-11-26T12:00:00.000000Z", "run/1 ü", "desk")
    assert unpacked(packed(place)) == place
    wrong = ("", "x", "!!!", packed(("soon", "r", "a")), packed((place[0], "r\0", "a")), "W10", "MQ", "WzEsMiwzXQ", "é")
    assert [unpacked(one) for one in wrong] == [None] * len(wrong)

"""Roles, rates and where a request comes from."""

import pytest

from midwatch_services.console.access.limits import Limits
from midwatch_services.console.access.origin import is_ours
from midwatch_services.console.access.roles import BadRoles, Role, given, parse

HOSTS = frozenset({"console.shop.example"})


def test_each_role_may_do_what_those_before_it_may() -> None:
    assert [role for role in Role if Role.REVIEWER.may(role)] == [Role.VIEWER, Role.REVIEWER]
    assert all(Role.ADMIN.may(role) for role in Role)
    assert [role for role in Role if Role.VIEWER.may(role)] == [Role.VIEWER]


def test_the_highest_role_of_a_claim_counts_and_a_strange_claim_gives_none() -> None:
    roles = parse("midwatch-admins=admin, support = reviewer,cn=x=viewer")
    assert roles == {"midwatch-admins": Role.ADMIN, "support": Role.REVIEWER, "cn=x": Role.VIEWER}
    assert given(["cn=x", "support", 7, None], roles) is Role.REVIEWER
    assert given("support", roles) is Role.REVIEWER
    for strange in (None, 7, {"support": True}, [], ["others"], "Support"):
        assert given(strange, roles) is None


@pytest.mark.parametrize("text", ["support", "support=boss", "=admin"])
def test_a_pair_that_gives_no_role_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRoles, match=f"'{text}' gives no role"):
        parse(text)


def test_ten_seconds_worth_come_at_once_and_then_so_many_a_second() -> None:
    limits = Limits(2.0)
    assert [limits.wait("ann", 0.0) for _ in range(21)] == [0.0] * 20 + [0.5]
    assert limits.wait("ben", 0.0) == 0.0
    assert limits.wait("ann", 0.25) == 0.25
    assert limits.wait("ann", 0.5) == 0.0
    assert [limits.wait("ann", 1000.0) for _ in range(21)] == [0.0] * 20 + [0.5]


def test_many_strangers_do_not_make_it_forget_who_is_at_the_limit() -> None:
    limits = Limits(1.0)
    for _ in range(11):
        limits.wait("flood", 0.0)
    for place in range(10_000):
        limits.wait(f"stranger-{place}", 1.0 + place / 2500)
    assert [limits.wait("flood", 5.0) for _ in range(6)] == [0.0] * 5 + [1.0]


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://console.shop.example"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://console.shop.example"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "https://console.shop.example.evil.example"}, False),
        ({"origin": "https://evil@console.shop.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
    ],
)
def test_only_a_page_of_ours_acts(headers: dict[str, str], ours: bool) -> None:
    assert is_ours(headers, HOSTS) is ours

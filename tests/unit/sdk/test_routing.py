"""What a process makes of its readings of the route, and which tickets a canary draws."""

from pathlib import Path

import pytest

from midwatch.routing import RouteKey, drawn
from midwatch.switch import Answer, LocalSwitch, clock

ABSENT = Answer(0, 0, None)
SHADOW, FULL = b'{"stage":"shadow","reason":"too bold","by":"eva"}', b'{"stage":"full"}'
CANARY = b'{"stage":"canary","traffic":0.1,"salt":"s"}'


def read(*answers: Answer) -> RouteKey:
    route = RouteKey()
    for answer in answers:
        route.take(answer, clock())
    return route


def stops(route: RouteKey) -> str | None:
    return route.standing.stops.reason if route.standing.stops else None


def test_a_route_that_was_never_read_stops_live_runs() -> None:
    assert stops(RouteKey()) == "the route could not be read"


def test_a_route_that_was_never_written_stops_nothing() -> None:
    route = read(ABSENT)
    assert (route.read, stops(route), route.standing.stage) == (True, None, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the route was deleted"),
        (b"", "the route cannot be read"),
        (b"{", "the route cannot be read"),
        (b"\xff", "the route cannot be read"),
        (b'{"stage":"half"}', "the route cannot be read"),
        (b'{"stage":"canary","traffic":2}', "the route cannot be read"),
        (SHADOW, "too bold"),
    ],
)
def test_a_route_that_is_gone_unreadable_or_shadow_stops_live_runs(value: bytes | None, reason: str) -> None:
    halt = read(Answer(7, 7, value)).standing.stops
    assert halt is not None
    assert (halt.key, halt.reason, halt.epoch) == ("route", reason, None)


@pytest.mark.parametrize("value", [CANARY, FULL])
def test_a_route_that_goes_missing_after_it_was_seen_stops_live_runs(value: bytes) -> None:
    assert stops(read(Answer(7, 7, value), ABSENT)) == "the route is missing"


@pytest.mark.parametrize("later", [ABSENT, Answer(6, 6, FULL), Answer(6, 7, FULL), Answer(8, 6, FULL)])
def test_nothing_missing_or_older_lifts_a_shadow(later: Answer) -> None:
    assert read(Answer(7, 7, SHADOW), later).standing.stage == "shadow"


def test_an_older_answer_does_not_lift_a_canary() -> None:
    assert read(Answer(7, 7, CANARY), Answer(6, 6, FULL)).standing.traffic == 0.1


def test_a_shadow_of_a_higher_revision_is_obeyed_whatever_the_servers_clock_says() -> None:
    assert read(Answer(7, 7, FULL), Answer(8, 6, SHADOW)).standing.stage == "shadow"


def test_a_later_reading_lifts_a_shadow() -> None:
    route = read(Answer(7, 7, SHADOW), Answer(8, 8, FULL))
    assert (route.standing.stage, stops(route)) == ("full", None)


def restarted(file: Path, value: bytes | None) -> LocalSwitch:
    """A process that begins beside a replica without the route, after one that saw it."""
    before = LocalSwitch("desk", seen=file)
    before.take_route(Answer(7, 7, value), clock())
    before.save()
    after = LocalSwitch("desk", seen=file)
    after.take_route(ABSENT, clock())
    return after


def test_a_shadow_outlives_a_restart_beside_a_replica_that_lags(tmp_path: Path) -> None:
    assert restarted(tmp_path / "seen.json", SHADOW).route.standing.stage == "shadow"


@pytest.mark.parametrize("value", [CANARY, None, b"{"], ids=["canary", "deleted", "unreadable"])
def test_neither_does_a_restart_lift_what_a_route_restricts(tmp_path: Path, value: bytes | None) -> None:
    assert stops(restarted(tmp_path / "seen.json", value).route) == "the route is missing"


def test_a_route_that_lets_it_all_act_is_not_kept(tmp_path: Path) -> None:
    assert stops(restarted(tmp_path / "seen.json", FULL).route) is None


def test_a_lifted_shadow_is_forgotten_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    before = LocalSwitch("desk", seen=file)
    for answer in (Answer(7, 7, SHADOW), Answer(8, 8, FULL)):
        before.take_route(answer, clock())
        before.save()
    after = LocalSwitch("desk", seen=file)
    after.take_route(ABSENT, clock())
    assert stops(after.route) is None


# `printf 'salt\0T-1' | sha256sum` begins with 2ac87c9b6cba5c64, which is 0.1671… of 2**64
@pytest.mark.parametrize(
    ("salt", "ticket", "share", "answer"),
    [
        ("salt", "T-1", 0.167, False),
        ("salt", "T-1", 0.168, True),
        ("salt", "T-3", 0.733, False),
        ("salt", "T-3", 0.734, True),
        ("pepper", "T-1", 0.06, True),  # another salt, another draw
        ("", "T-1", 0.137, True),
        ("salt", "T-4", 0.0, False),
        ("salt", "T-3", 1.0, True),
    ],
)
def test_a_canary_draws_tickets_by_hash(salt: str, ticket: str, share: float, answer: bool) -> None:
    assert drawn(salt, ticket, share) is answer


def test_a_canary_draws_about_its_share() -> None:
    assert 900 < sum(drawn("salt", f"T-{number}", 0.1) for number in range(10_000)) < 1_100

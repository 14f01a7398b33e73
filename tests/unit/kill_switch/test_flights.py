"""Which runs a process leaves behind: those of its events, and those of a process whose name another has taken."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from midwatch_services.kill_switch.cases import routing
from midwatch_services.kill_switch.cases.flights import Flight, Flights
from midwatch_services.kill_switch.decide import Instance, Surroundings
from midwatch_services.kill_switch.policy import POLICY

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LEASE = timedelta(seconds=5)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


POD = Instance("desk", "pod-1", {}, ("r2",), (), at(20), LEASE, since=at(10))


def around(seconds: float) -> Surroundings:
    return Surroundings(at(seconds), T0, 0)


def test_the_runs_of_an_instance_are_those_that_began_and_have_not_ended() -> None:
    flights = Flights()
    flights.note(("desk", "r1"), 1, at(0), "pod-1")
    flights.note(("desk", "r2"), 2, at(1), "pod-1")
    flights.note(("desk", "r3"), 3, at(1), "pod-2")
    flights.note(("desk", "r1"), 4, at(2), "pod-1", "resolved")
    assert flights.of("desk", "pod-1", at(3)) == ["r2"]
    assert flights.of("desk", "pod-1", at(1)) == []


def test_what_was_saved_is_whose_it_was() -> None:
    flights = Flights()
    flights.load(7, {("desk", "r1"): Flight(3, at(1), "pod-1")})
    assert flights.of("desk", "pod-1", at(2)) == ["r1"]
    flights.note(("desk", "r1"), 8, at(4), "pod-1", "resolved")
    assert flights.of("desk", "pod-1", at(9)) == []
    assert flights.changes().over == {("desk", "r1")}


def test_a_run_that_began_after_the_last_word_of_its_instance_is_stranded_with_it() -> None:
    assert routing.stranded(POD, ["r3"]) == ["r2", "r3"]
    assert routing.stranded(replace(POD, no_case=("r3",)), ["r3"]) == ["r2"]


def test_a_name_is_taken_once_the_lease_of_the_process_before_has_run_out() -> None:
    assert routing.gone(POD, at(9), around(15), False, POLICY) is False
    assert routing.gone(POD, at(9), around(15.1), False, POLICY) is True
    assert routing.gone(POD, at(11), around(20), False, POLICY) is False  # that was the new one
    assert routing.replaced(POD, around(15.1)) == at(10)


def test_what_the_new_process_has_is_not_left_behind_by_the_old() -> None:
    assert routing.left_behind(POD, ["r1", "r2"]) == ["r1"]

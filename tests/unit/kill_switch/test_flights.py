"""Which runs a process leaves behind: those of its events, and those of a process whose name another has taken."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from midwatch_services.kill_switch.cases import flights as flights_module
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


R1 = ("desk", "r1")


def heard(flights: Flights, run: tuple[str, str], *seqs: int) -> None:
    """Events of a run, the first of which begins it."""
    for place, seq in enumerate(seqs):
        flights.note(run, seq, at(seq), "pod-1", begins=place == 0)


def path(flights: Flights, run: tuple[str, str] = R1) -> tuple[list[int], int] | None:
    """Sequences, and how many are left out."""
    found = flights.path(run)
    return (list(found.seqs), found.skipped) if found else None


def test_where_the_events_of_a_run_are_is_remembered_in_order_and_each_once() -> None:
    flights = Flights()
    heard(flights, R1, 3, 5, 9, 5, 7)
    heard(flights, ("desk", "r2"), 4)
    assert path(flights) == ([3, 5, 7, 9], 0)
    assert path(flights, ("desk", "r2")) == ([4], 0)


def test_a_run_that_was_not_heard_from_its_first_event_on_has_no_path() -> None:
    flights = Flights()
    flights.load(7, {R1: Flight(3, at(1), "pod-1")})
    heard(flights, R1, 3, 8)  # its beginning is delivered again, after a restart
    flights.note(("desk", "r2"), 9, at(1), "pod-1")
    flights.note(("desk", "r2"), 10, at(1), "pod-1", begins=True)
    assert path(flights) is None
    assert path(flights, ("desk", "r2")) is None


def test_a_run_that_was_stopped_keeps_its_path_and_one_that_ended_well_does_not() -> None:
    flights = Flights()
    for run, how in (("r1", "halted"), ("r2", "fell_back"), ("r3", "resolved")):
        flights.note(("desk", run), 1, at(0), "pod-1", begins=True)
        flights.note(("desk", run), 5, at(0), "pod-1", how)  # type: ignore[arg-type]
        flights.note(("desk", run), 6, at(0), "pod-1")
    assert [path(flights, ("desk", run)) for run in ("r1", "r2", "r3")] == [([1, 5, 6], 0), ([1, 5, 6], 0), None]


def test_of_a_long_run_the_first_and_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "_A_RUN", 4)
    flights = Flights()
    heard(flights, R1, 1, 2, 3, 4, 5)
    assert path(flights) == ([1, 4, 5], 2)
    heard(flights, R1, 6, 7)
    assert path(flights) == ([1, 6, 7], 4)


def test_beyond_the_bound_of_all_runs_each_keeps_little_until_others_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "_IN_ALL", 6)
    monkeypatch.setattr(flights_module, "_SCARCE", 2)
    flights = Flights()
    heard(flights, R1, 1, 2, 3, 4)
    heard(flights, ("desk", "r2"), 11, 12, 13)
    assert path(flights, ("desk", "r2")) == ([11, 13], 1)
    flights.note(R1, 14, at(20), "pod-1", "resolved")
    heard(flights, ("desk", "r3"), 15, 16, 17)
    assert path(flights, ("desk", "r3")) == ([15, 16, 17], 0)


def test_of_many_stopped_runs_the_newest_keep_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "_STOPPED", 1)
    flights = Flights()
    for run, seq in (("r1", 1), ("r2", 3)):
        flights.note(("desk", run), seq, at(0), "pod-1", begins=True)
        flights.note(("desk", run), seq + 1, at(0), "pod-1", "halted")
    assert path(flights) is None
    assert path(flights, ("desk", "r2")) == ([3, 4], 0)

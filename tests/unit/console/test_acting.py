"""What the acting pages decide: who a halt meets, which days are meant, what a sheet may hold."""

from datetime import UTC, date, datetime

import pytest

from midwatch.contracts.control import SwitchRecord
from midwatch.runtime.switchboard import Scope
from midwatch_services.console import days, sheet, stopping
from midwatch_services.console.stopping import Instance

NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)


def an_instance(agent: str, name: str, *running: str, why_not: str = "") -> Instance:
    return Instance(agent, name, why_not, running, (), "h", 7, "1", 0.5)


SOME = [
    an_instance("desk", "pod-1", "r-1", "r-2"), an_instance("desk", "pod-2", "r-3", why_not="silent for 9 s"),
    an_instance("other", "pod-1", "r-1"),
]  # fmt: skip
STRAYS = {"quiet": ["s-1", "s-2"], "desk": ["r-1"]}


@pytest.mark.parametrize(
    ("scope", "instances", "runs", "strays"),
    [
        (Scope(), 3, 4, 2),
        (Scope("desk"), 2, 3, 0),
        (Scope("desk", tool="refund"), 2, 3, 0),
        (Scope("desk", run_id="r-3"), 2, 1, 0),
        (Scope("desk", run_id="gone"), 2, 0, 0),
        (Scope("quiet"), 0, 0, 2),
        (Scope("quiet", run_id="s-2"), 0, 0, 1),
    ],
)
def test_a_halt_meets_what_is_in_its_scope_and_counts_nobody_twice(
    scope: Scope, instances: int, runs: int, strays: int
) -> None:
    met = stopping.effect(scope, SOME, STRAYS)
    assert (met.instances, met.runs, met.strays, met.moving) == (instances, runs, strays, runs + strays)
    assert stopping.effect(scope, SOME, None).strays is None


def test_those_that_may_not_obey_are_named() -> None:
    assert [one.instance for one in stopping.effect(Scope("desk"), SOME, None).not_armed] == ["pod-2"]


def test_a_scope_goes_into_an_address_and_has_a_kind() -> None:
    assert stopping.fields_of(Scope()) == {"what": "fleet"}
    assert stopping.fields_of(Scope("desk", tool="t")) == {"what": "tool", "agent": "desk", "tool": "t"}
    assert stopping.fields_of(Scope("desk", run_id="r")) == {"what": "run", "agent": "desk", "run": "r"}


def test_a_mark_knows_one_record_from_another() -> None:
    halted = SwitchRecord(state="halted", by="ann", reason="x", at=NOW)
    assert stopping.mark(halted) == stopping.mark(SwitchRecord(state="halted", by="ann", reason="x", at=NOW))
    assert stopping.mark(halted) != stopping.mark(SwitchRecord(state="halted", by="ben", reason="x", at=NOW))
    assert stopping.mark(halted) != stopping.mark(None)


@pytest.mark.parametrize(
    ("text", "may"),
    [("", True), ("human", True), ("agent:desk", True), ("agent:", False), ("agent:No", False), ("desk", False)],
)
def test_cases_go_to_people_or_to_an_agent(text: str, may: bool) -> None:
    assert stopping.is_fallback(text) is may


def test_the_usual_days_end_today_in_the_houses_zone() -> None:
    found = days.days("", "", NOW, "Europe/Berlin", usual=7, most=92)
    assert (found.first, found.last) == (date(2026, 11, 17), date(2026, 11, 23))
    assert found.end.isoformat() == "2026-11-24T00:00:00+01:00"
    one = days.days("2026-10-25", "2026-10-25", NOW, "Europe/Berlin", usual=7, most=92)
    assert (one.last, (one.end.astimezone(UTC) - one.begin.astimezone(UTC)).total_seconds()) == (one.first, 25 * 3600)


@pytest.mark.parametrize(
    ("first", "last"), [("x", ""), ("", "2026-13-01"), ("2026-01-02", "2026-01-01"), ("2026-01-01", "2026-11-01"),
                        ("0001-01-01", "")],
)  # fmt: skip
def test_what_names_no_days_is_refused(first: str, last: str) -> None:
    with pytest.raises(days.BadDay):
        days.days(first, last, NOW, "UTC", usual=7, most=92)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"), ("=1+1", "'=1+1"), ("+49 30", "'+49 30"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"), ("\t=1", "'\t'=1"), ("\n=1", "'\n'=1"), (None, ""), (7, "7"),
        (-7, "-7"), ("a\0b", "a\ufffdb"), ("|x", "'|x"), ("%x", "'%x"), ("＝1", "'＝1"), ("＠x", "'＠x"),
        ('"=1', "'\"=1"),
        ("Hello;=cmd|' /C calc'!A0;", "Hello;'=cmd|' /C calc'!A0;"), ("a;  +1", "a;  '+1"), ('a;"=1&"', 'a;"\'=1&"'),
        ("a\n=1\n=2", "a\n'=1\n'=2"), ("a\t@x", "a\t'@x"), ("a;＝1", "a;'＝1"), ("3 - 2 = 1; x=1", "3 - 2 = 1; x=1"),
    ],
)  # fmt: skip
def test_a_cell_is_text_whatever_a_spreadsheet_would_make_of_it(value: object, written: str) -> None:
    assert sheet.cell(value) == written


def test_a_sheet_quotes_every_cell() -> None:
    assert sheet.of(("a", "b"), [("x,y", 'say "hi"\nthere')]) == '"a","b"\r\n"x,y","say ""hi""\nthere"\r\n'

"""Cells that other programs open."""

import pytest

from midwatch_services.console.table_file import _FIELDS, COLUMNS, cell, row


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"), ("\n=1", "'\n'=1"), ("  =1+1", "'  =1+1"), ("＝1+1", "'＝1+1"), ("a=1", "a=1"),
        ("Is it 5-3?", "Is it 5-3?"), (None, ""), (7, "7"), (1234.6, "1235"), ({"a": "=1"}, '{"a": "=1"}'),
        ("x" * 2001, "x" * 2000 + "…"), ("half\ud83d", "half?"), ("a\0b", "a\ufffdb"),
    ],
)  # fmt: skip
def test_what_begins_as_a_formula_is_kept_from_being_one(value: object, shown: str) -> None:
    assert cell(value) == shown


FORMULAS = ("=1+1", "Hello;=cmd|' /C calc'!A0;", "a\n@x")
SAID = ("'=1+1", "Hello;'=cmd|' /C calc'!A0;", "a\n'@x")


@pytest.mark.parametrize("place", range(len(COLUMNS)), ids=COLUMNS)
def test_no_column_holds_a_formula(place: int) -> None:
    rows = [row({**dict.fromkeys(_FIELDS), _FIELDS[place]: value}) for value in FORMULAS]
    assert [one[place] for one in rows] == list(SAID)

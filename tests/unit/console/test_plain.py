"""Data as the console writes it for people who do not read JSON."""

from typing import Any

import pytest

from midwatch_services.console import plain


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"order": "A-2043", "amount": 39.9}, "order: A-2043, amount: 39.9"),
        ({"paid_by": "card", "done": True, "late": False}, "paid by: card, done: yes, late: no"),
        ({"note": None, "tags": [], "more": {}}, "note: nothing, tags: nothing, more: nothing"),
        ({"items": ["lamp", "desk"], "in": 2}, "items: (lamp, desk), in: 2"),
        (["lamp", 3], "lamp, 3"),
        ("{as it was written}", "{as it was written}"),
        (7, "7"),
        ([], "nothing"),
    ],
)
def test_short_data_stands_on_one_line(value: Any, written: str) -> None:
    assert plain.words(value) == written


def test_data_within_data_stands_further_in() -> None:
    value = {
        "charges": [{"amount": 39.9, "by": "card"}, {"amount": 5}], "to": {"city": "Bonn", "zip": "53111"},
        "lines": [["a", "b"], [{"c": 1}]],
    }  # fmt: skip
    assert plain.words(value).splitlines() == [
        "charges:",
        "  – amount: 39.9, by: card",
        "  – amount: 5",
        "to:",
        "  city: Bonn, zip: 53111",
        "lines:",
        "  – a, b",
        "  –",
        "    – c: 1",
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"name": "x, status: paid"}, "name: “x, status: paid”"),
        ({"name": "x”, status: “paid"}, 'name: “x", status: "paid”'),
        ({"a: b": " c"}, "“a: b”: “ c”"),
        ({"name": ""}, "name: “”"),
    ],
)
def test_no_value_passes_for_another_name(value: Any, written: str) -> None:
    assert plain.words(value) == written


def test_a_line_break_in_a_value_starts_no_line_of_its_own() -> None:
    written = plain.words({"name": "x\nstatus: paid", "of": [{"in": "y\n– z", "why": "w" * 100}]})
    assert written.splitlines()[1] == "    status: paid”"
    assert [line for line in written.splitlines() if line.lstrip().startswith("– z")] == ["        – z”"]


def test_what_lies_very_deep_stays_as_it_was_logged() -> None:
    value: Any = 1
    for _ in range(9):
        value = {"a": value}
    assert plain.words(value).splitlines()[-1] == f'{"  " * 6}a: {{"a": {{"a": 1}}}}'


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"order": "A-1"}', {"order": "A-1"}),
        (" [1, 2]", [1, 2]),
        ("{not JSON", "{not JSON"),
        ("[" * 100_000, "[" * 100_000),
        ('{"amount": 5, "amount": 500}', '{"amount": 5, "amount": 500}'),  # one of which would be hidden
        ("12", "12"),
    ],
)
def test_a_text_that_is_json_is_opened_and_no_other(text: str, data: Any) -> None:
    assert plain.opened(text) == data

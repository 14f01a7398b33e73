"""Data as the console writes it for people who do not read JSON."""

from collections.abc import Iterator
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
        "  city: Bonn, zip: “53111”",
        "lines:",
        "  – a, b",
        "  –",
        "    – c: 1",
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"name": "x, status: paid"}, "name: “x, status: paid”"),
        ({"name": "x‚ status꞉ paid"}, "name: “x‚ status꞉ paid”"),
        ({"name": "x”, status: “paid"}, "name: «x”, status: “paid»"),
        ({"name": "“«‹"}, 'name: “"«‹”'),
        ({"a: b": " c"}, "“a: b”: “ c”"),
        ({"name": ""}, "name: “”"),
    ],
)
def test_no_value_passes_for_another_name(value: Any, written: str) -> None:
    assert plain.words(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": "5", "b": 5}, "a: “5”, b: 5"),
        ({"a": "yes", "b": True}, "a: “yes”, b: yes"),
        ({"a": "nothing", "b": None}, "a: “nothing”, b: nothing"),
        ({"_id": 1, "__typename": "Order"}, "_id: 1, __typename: Order"),
        ({"paid_by": 1, "paid by": 2}, "paid_by: 1, paid by: 2"),
        ({"it's": "10 % of A/B-7, or a@b.c"}, "it's: “10 % of A/B-7, or a@b.c”"),
        ({"to": "a@b.c", "sum": "$5.00", "for": "A/B-7"}, "to: a@b.c, sum: $5.00, for: A/B-7"),
    ],
)
def test_what_differs_is_written_differently(value: Any, written: str) -> None:
    assert plain.words(value) == written


def test_numbers_of_a_text_stay_as_they_were_written() -> None:
    text = '{"version": 1.10, "sum": 39.90, "id": 12345678901234567890.12, "far": 1E400}'
    assert plain.words(plain.opened(text)) == "version: 1.10, sum: 39.90, id: 12345678901234567890.12, far: 1E400"


def test_no_more_lines_are_made_than_are_shown() -> None:
    class Endless(list[dict[str, int]]):
        """Fails where it is read to its end."""

        def __iter__(self) -> Iterator[dict[str, int]]:
            yield from ({"number": number} for number in range(1000))
            raise AssertionError("it was read to its end")

    written = plain.words(Endless([{}] * 2000), 30)
    assert written.splitlines() == ["– number: 0", "– number: 1", "– number: 2"]


@pytest.mark.parametrize("value", [plain.opened("[" * 900 + "]" * 900), {"a": 10**5000}])
def test_what_cannot_be_told_keeps_nothing_else_from_being_told(value: Any) -> None:
    deep: Any = value
    for _ in range(2000 if isinstance(value, list) else 0):
        deep = [deep]
    assert plain.words(deep) == "This is too deep to be told here: the dossier of the run has it as data."


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
        (" [true, null]", [True, None]),
        ("{not JSON", "{not JSON"),
        ("[" * 100_000, "[" * 100_000),
        ('{"amount": 5, "amount": 500}', '{"amount": 5, "amount": 500}'),  # one of which would be hidden
        ("12", "12"),
    ],
)
def test_a_text_that_is_json_is_opened_and_no_other(text: str, data: Any) -> None:
    assert plain.opened(text) == data

"""Money as text, and the names on the wire."""

import uuid
from decimal import Decimal

import pytest

from midwatch.contracts import subjects
from midwatch.contracts.envelope import new_id
from midwatch.contracts.money import to_money


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (0, "0"),
        ("1.50", "1.5"),
        (Decimal("1E-7"), "0.0000001"),
        (40, "40"),
        (1e-5, "0.00001"),
    ],
)
def test_money_is_written_as_a_plain_decimal(amount: object, text: str) -> None:
    assert to_money(amount) == text


@pytest.mark.parametrize("amount", [-0.01, "-1", float("nan"), float("inf")])
def test_what_is_no_amount_of_money_is_refused(amount: object) -> None:
    with pytest.raises(ValueError, match="no amount of money"):
        to_money(amount)


@pytest.mark.parametrize("name", ["refund-desk", "a", "0x_1", "a" * 63])
def test_an_agents_name_may_stand_in_a_subject(name: str) -> None:
    assert subjects.is_agent_name(name)


@pytest.mark.parametrize("name", ["", "Refund", "refund.desk", "-a", "_fleet", "a" * 64, "a b", "é", "a\n", "*", ">"])
def test_what_would_break_a_subject_is_no_agents_name(name: str) -> None:
    assert not subjects.is_agent_name(name)


def test_an_id_is_a_version_7_uuid_and_never_repeats() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    parsed = uuid.UUID(ids[0])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)

"""What is known by name is found however it is written, and what only looks like it is left alone."""

import re
import sys

import pytest

from midwatch_services.logger.redaction.letters import digits_plain
from midwatch_services.logger.redaction.redactor import Redactor
from midwatch_services.logger.redaction.rules import compiled

REDACTOR = Redactor(compiled(), "desk")

FOUND = [
    ("Write to dana.moore@example.com.", "Write to [email]."),
    ("<o'brien+tag@mail.example.co.uk>", "<[email]>"),
    ("dana%40example.com", "[email]"),
    ("https://x.example/?mail=dana%40example.com&b=1", "https://x.example/?mail=[email]&b=1"),
    ('"dana moore"@example.com', "[email]"),
    ("jürgen@müller.example", "[email]"),
    ("dana＠example．com", "[email]"),
    ("root@[192.168.1.7]", "[email]"),
    ("a@b.co,c@d.co", "[email],[email]"),
    ('{"email": "dana\\u0040example.com"', '{"email": "[email]"'),
    ("call 555-123-2002 now", "call [phone] now"),
    ("(555) 123-2002", "([phone]"[1:]),
    ("1\u2011800\u2011555\u20110199", "[phone]"),
    ("+44 (0)20 7946 0958", "[phone]"),
    ("+15551234567", "[phone]"),
    ("0049 30 1234567", "[phone]"),
    ("06 12 34 56 78", "[phone]"),
    ("020 7946 0958", "[phone]"),
    ("my phone is 5551234567", "my phone is [phone]"),
    ("4111 1111 1111 1111", "[card]"),
    ("4111-1111-1111-1111 exp 12/28", "[card] exp 12/28"),
    ("4111.1111.1111.1111", "[card]"),
    ("4111111111111111", "[card]"),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card]"),
    ("3782 822463 10005", "[card]"),
    ("card 4111\u202f1111\u202f1111\u202f1111 and cvv 123", "card [card] and cvv 123"),
    ("٤١١١ ١١١١ ١١١١ ١١١١", "[card]"),
    ("\\u0034111111111111111", "[card]"),
    ("DE89 3704 0044 0532 0130 00", "[iban]"),
    ("de89370400440532013000.", "[iban]."),
    ("NO93 8601 1117 947", "[iban]"),
    ("GB29-NWBK-6016-1331-9268-19", "[iban]"),
]  # fmt: skip

LEFT = [
    "order #W1234567", "item 1008292230", "user emma_kim_9957", "reservation EHGLP3", "2024-05-16 2024-05-17",
    "2024-05-16T15:00:00", "09-12-2024 10:30", "12/31/2024", "$1,234,567.89", "6.739999999999981",
    "call_hlIdcTydrscdTJN9kdRPDwkN", "7ad146cf-324c-46e5-93c9-8fb281c7ab01", "credit_card_5832574", "192.168.1.1",
    "4111 1111 1111 1112", "DE12 5001 0517 0648 4898 91", "tracking 353040585167", "@everyone", "a @ b", "me@localhost",
    "version 1.2.3.4", '"Headphones": "6992792935"', "0.4111111111111111", "8 + 1234567", "a4111111111111111",
    "[email] [card]", "555-1234", "imei 351756051523999x",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_it_is_found_however_it_is_written(text: str, expected: str) -> None:
    assert REDACTOR.text(text) == expected


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert REDACTOR.text(text) == text


@pytest.mark.parametrize("key", ["phone_number", "customerPhone", "Mobile", "phone2", "tel", "fax no"])
def test_a_number_under_a_key_that_says_so_is_a_telephone_number(key: str) -> None:
    assert REDACTOR.value({key: "5551234567"}) == {key: "[phone]"}
    assert REDACTOR.value({key: 5551234567}) == {key: "[phone]"}
    assert REDACTOR.value([{key: " 555 1234567"}]) == [{key: "[phone]"}]


@pytest.mark.parametrize("key", ["Headphones", "smartphone", "hotel", "order_id", "amount"])
def test_a_number_under_any_other_key_is_not(key: str) -> None:
    assert REDACTOR.value({key: "5551234567", "a": 5551234567}) == {key: "5551234567", "a": 5551234567}


def test_a_huge_text_is_looked_through_in_a_moment() -> None:
    for part in ("1 ", "a", "4111 1111 1111 ", "+1 ", "a.", "(0", "DE89 ", "phone ", '"', "[email:1."):
        assert REDACTOR.text(part * (250_000 // len(part)) + " dana@example.com").endswith("[email]")


def test_a_digit_of_any_script_is_read_as_its_value() -> None:
    digits = "".join(re.findall(r"\d", "".join(map(chr, range(sys.maxunicode + 1)))))
    assert len(digits) >= 600
    assert digits_plain(digits) == "".join(str(int(digit)) for digit in digits)

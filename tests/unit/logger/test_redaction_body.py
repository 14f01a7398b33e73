"""A stored body holds nothing that a rule names, whatever way it was written, and all else as it was."""

import dataclasses
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logged import received
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import REDACTED, RedactRule
from midwatch_services.logger.redaction.candidates import ALL
from midwatch_services.logger.redaction.redactor import KEPT, Redactor
from midwatch_services.logger.redaction.rules import compiled

OWN = (*REDACTED, RedactRule(name="order_no", pattern=r"A-\d{4}"), RedactRule(name="born", field="date_of_birth"))
DEFAULT, WITH_OWN = Redactor(compiled(), "desk"), Redactor(compiled(OWN), "desk")
MAIL, CARD, PHONE, IBAN = "dana.moore@example.com", "4111 1111 1111 1111", "555-123-2002", "DE89 3704 0044 0532 0130 00"
# What an independent reader would call an address or a card number.
ADDRESS = re.compile(r"[a-z]+\.?[a-z]+@[a-z]+\.com")
DIGITS = re.compile(r"(?<![\dA-Za-z])[0-9](?:[ -]?[0-9]){12,18}(?![\dA-Za-z]|[ -]\d)")


def body(data: dict[str, Any], *, ascii_only: bool = False, indent: int | None = None) -> bytes:
    event = {
        "specversion": "1.0", "id": "e-1", "source": "/agents/desk/pod", "type": "midwatch.run.tool_called.v1",
        "subject": "r-1", "time": "2026-11-22T12:00:00Z",
        "data": {"run_id": "r-1", "agent": "desk", "version": "1", "mode": "live", "seq": 0, "tool": "t", **data},
    }  # fmt: skip
    return json.dumps(event, ensure_ascii=ascii_only, indent=indent).encode()


def data_of(stored: bytes) -> dict[str, Any]:
    return dict(json.loads(stored)["data"])


def luhn(number: str) -> bool:
    digits = [int(sign) for sign in number if sign.isdigit()][::-1]
    return sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits)) % 10 == 0


def test_nothing_of_a_body_without_a_match_is_touched() -> None:
    clean = body({"result": {"order": 1008292230, "note": "Ünïcode – fine", "at": "2024-05-17"}}, indent=2)
    assert DEFAULT.body(clean) is clean


@pytest.mark.parametrize("secret", [MAIL, CARD, PHONE, IBAN])
@pytest.mark.parametrize(
    "place",
    [
        lambda s: {"arguments": s}, lambda s: {"arguments": {"a": {"b": [1, {"c": f"x {s} y"}]}}},
        lambda s: {"result": json.dumps({"a": s})}, lambda s: {"result": json.dumps({"a": json.dumps([s])})},
        lambda s: {"result": {s: 1}}, lambda s: {"error": f"no {s}"}, lambda s: {"labels": {"l": s}},
        lambda s: {"result": [s] * 3}, lambda s: {"later_field": s}, lambda s: {"result": "x" * 100_000 + " " + s},
        lambda s: {"result": f"a\n{s}\tb"}, lambda s: {"result": f'"{s}"'},
    ],
)  # fmt: skip
def test_it_is_replaced_wherever_it_stands(secret: str, place: Any) -> None:
    for ascii_only in (False, True):
        stored = DEFAULT.body(body(place(secret), ascii_only=ascii_only))
        assert secret not in stored.decode()
        assert re.search(r"\[(email|card|phone|iban)\]", stored.decode())
        assert DEFAULT.body(stored) == stored


@pytest.mark.parametrize(
    "written",
    [
        b"dana\\u0040example.com", b"\\u0064ana@example.com", b"4111\\/1111\\/1111\\/1111",
        b"4111\\u00201111 1111 1111",
        b"\\uff14111 1111 1111 1111", "４１１１ １１１１ １１１１ １１１１".encode(), b"555\\u2011123\\u20112002",
        b"dana\\\\u0040example.com", b"{\\\"a\\\": \\\"dana\\\\u0040example.com\\\"}", b"\\u002b1 555 123 2002",
    ],
)  # fmt: skip
def test_json_escapes_and_digits_of_other_scripts_hide_nothing(written: bytes) -> None:
    stored = DEFAULT.body(body({"result": "HERE"}).replace(b"HERE", written))
    assert re.search(rb"\[(email|card|phone)\]", stored)
    assert DEFAULT.body(stored) == stored


def test_numbers_are_looked_at_as_well() -> None:
    found = data_of(
        DEFAULT.body(body({"arguments": {"card": 4111111111111111, "n": 12, "x": 1.5, "phone": 5551232002}}))
    )
    assert found["arguments"] == {"card": "[card]", "n": 12, "x": 1.5, "phone": "[phone]"}


def test_ids_names_and_figures_stay_even_where_they_look_like_data() -> None:
    kept = {
        "ticket": MAIL, "session": PHONE, "call_id": CARD, "tool": MAIL, "usage": {"input_tokens": 4111111111111111},
        "cost_usd": "0.4111111111111111", "latency_ms": 4111111111111111.0, "customer": MAIL,
    }  # fmt: skip
    found = data_of(DEFAULT.body(body({**kept, "arguments": MAIL})))
    assert {name: found[name] for name in kept} == kept
    assert found["arguments"] == "[email]"


def test_a_key_that_stands_twice_hides_nothing() -> None:
    raw = body({"result": "clean"}).replace(b'"result"', b'"result": "' + MAIL.encode() + b'", "result"')
    assert MAIL.encode() in raw
    assert MAIL.encode() not in DEFAULT.body(raw)
    twice = (
        body({"result": "clean"})[:-1].replace(b'"data"', b'"data": {"result": "' + MAIL.encode() + b'"}, "data"')
        + b"}"
    )
    assert MAIL.encode() not in DEFAULT.body(twice)


def test_data_is_found_wherever_it_stands_and_however_its_key_is_written() -> None:
    event = json.loads(body({"result": MAIL}))
    first = json.dumps({"data": event.pop("data"), **event}).encode()
    assert MAIL.encode() not in DEFAULT.body(first)
    assert MAIL.encode() not in DEFAULT.body(body({"result": MAIL}).replace(b'"data"', b'"d\\u0061ta"'))


def test_two_keys_that_become_one_keep_both_values() -> None:
    stored = DEFAULT.body(body({"result": {MAIL: 1, "b@example.com": 2, "c": 3}}))
    assert data_of(stored)["result"] == {"[email]": 1, "[email][#2]": 2, "c": 3}
    assert DEFAULT.body(stored) == stored


def test_what_is_nested_as_deep_as_json_goes_is_found() -> None:
    deep: Any = MAIL
    for _ in range(700):
        deep = [deep]
    assert MAIL.encode() not in DEFAULT.body(body({"result": deep}))


def test_own_patterns_and_fields_are_replaced_at_any_depth() -> None:
    given = {"result": {"Date_of_Birth": {"y": 1985}, "x": [{"date_of_birth": "1985-06-15"}], "date_of_birth": None}}
    found = data_of(WITH_OWN.body(body({**given, "error": "no order A-1234", "arguments": '{"date_of_birth": 1985}'})))
    assert found["result"] == {"Date_of_Birth": "[born]", "x": [{"date_of_birth": "[born]"}], "date_of_birth": None}
    assert (found["error"], found["arguments"]) == ("no order [order_no]", '{"date_of_birth":"[born]"}')


def test_an_empty_list_of_rules_replaces_nothing() -> None:
    raw = body({"result": MAIL})
    assert Redactor(compiled(()), "desk").body(raw) is raw


def test_a_rule_that_matches_its_own_marker_still_comes_to_an_end() -> None:
    wordy = Redactor(compiled((RedactRule(name="word", pattern="[a-z]+"), RedactRule(name="email"))), "desk")
    once = wordy.text("dana@example.com 12")
    assert once == wordy.text(once) == "[word]@[word].[word] 12"


def test_each_event_of_the_contract_keeps_its_shape() -> None:
    said = {
        "started": {"input": [{"role": "user", "content": [{"text": MAIL}]}], "channel": f"sms:+1{PHONE}"},
        "said": {"by": "customer", "text": MAIL},
        "model_called": {"model": "m", "output": {"a": MAIL}, "error": MAIL},
        "tool_called": {"tool": "t", "arguments": {"a": MAIL}, "result": MAIL, "error": MAIL},
        "handed_off": {"to": "human", "reason": MAIL, "summary": MAIL, "context": [MAIL]},
        "finished": {"resolution": "failed", "output": MAIL, "error": MAIL},
        "proposed": {"action": MAIL, "output": MAIL}, "human_acted": {"action": MAIL, "by": MAIL},
    }  # fmt: skip
    for event, fields in said.items():
        one = received(event, labels={"l": MAIL}, **fields)
        stored = DEFAULT.body(one.body)
        assert b"@" not in stored and PHONE.encode() not in stored
        again = codec.decode_run(subjects.run("desk", event), stored)
        assert (again.id, again.time, again.data.run_id) == (one.event.id, one.event.time, "r-1")


PIECES = st.sampled_from([
    MAIL, CARD, PHONE, IBAN, "4111111111111111", "phone ", "tel: ", "5551234567", "A-1234", "A-", "+", "1", "00", "49",
    " ", "-", ".", "/", "\u2011", "\u00a0", "\u200b", "(", ")", "\n", "\t", '"', "\\", "\\u0040", "@", "x", "é", "٤",
    "１",
    "[email]", "[", "]", ",", "{", "}", "date_of_birth", "2024-05-17", "DE89", "example.com", ":", "%40",
])  # fmt: skip
TEXT = st.lists(PIECES, max_size=12).map("".join)
LEAF = TEXT | st.integers(-(10**20), 10**20) | st.booleans() | st.none() | st.sampled_from([1.5, 4111111111111111.0])
KEY = TEXT | st.sampled_from(["phone", "date_of_birth", "a", "customerTel"])
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3) | inner.map(json.dumps)
)
SLOW = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in (key, *strings(part))]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value if isinstance(value, str) else json.dumps(value)]


@SLOW
@given(value=VALUE, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_the_scan_leaves_out_nothing_that_looking_at_all_of_it_finds(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    raw = body({"result": value}, ascii_only=ascii_only, indent=indent)
    for redactor, rules in ((DEFAULT, REDACTED), (WITH_OWN, OWN)):
        slow = Redactor(dataclasses.replace(compiled(rules), scan=lambda _: ALL), "desk")
        assert msgspec.json.decode(redactor.body(raw)) == msgspec.json.decode(slow.body(raw))


@SLOW
@given(value=VALUE, ascii_only=st.booleans())
def test_what_is_stored_is_stored_alike_again(value: Any, ascii_only: bool) -> None:
    for redactor in (DEFAULT, WITH_OWN):
        once = redactor.body(body({"result": value}, ascii_only=ascii_only))
        assert redactor.body(once) == once


def no_other_script(value: Any) -> bool:
    # Which a reader of ASCII takes for the end of a number that it is a digit of.
    return not re.search("[٤１]|u0664|uff11", json.dumps(value, ensure_ascii=False))


@SLOW
@given(value=VALUE.filter(no_other_script), ascii_only=st.booleans())
def test_an_independent_reader_finds_nothing_in_what_is_stored(value: Any, ascii_only: bool) -> None:
    stored = data_of(DEFAULT.body(body({"result": value}, ascii_only=ascii_only)))
    for text in strings(stored["result"]):
        assert not ADDRESS.search(text), text
        assert not [found[0] for found in DIGITS.finditer(text) if found[0][0] in "3456" and luhn(found[0])], text


@SLOW
@given(value=VALUE)
def test_all_that_is_no_text_is_as_it_was(value: Any) -> None:
    raw = body({"result": value, "ticket": "T", "call_id": "c", "usage": {"input_tokens": 3}})
    stored = json.loads(WITH_OWN.body(raw))
    sent = json.loads(raw)
    assert {**stored, "data": 0} == {**sent, "data": 0}
    assert {k: v for k, v in stored["data"].items() if k in KEPT} == {
        k: v for k, v in sent["data"].items() if k in KEPT
    }

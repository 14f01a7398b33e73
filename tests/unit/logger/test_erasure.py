"""What stays of what is erased, and which messages speak of it."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from midwatch.contracts import subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.erasure import ErasedRun
from midwatch_services.logger.decide import RunRow
from midwatch_services.logger.erasure import blank, exports
from midwatch_services.logger.erasure.match import Scope, chunks
from midwatch_services.logger.evidence.chain import Block
from midwatch_services.logger.evidence.leaf import content_hash
from midwatch_services.logger.transfer.layout import File, Filter, Manifest, NoExport

RUN = ErasedRun(agent="desk", run_id="r-1", tickets=["T-9"])
SALT = bytes(range(16))


def scope(**more: Any) -> Scope:
    return Scope([RUN], references=["c 7/é"], **more)


def said(**data: Any) -> bytes:
    return msgspec.json.encode({"data": data})


def test_a_blank_body_says_by_what_it_was_erased_and_what_the_leaf_holds() -> None:
    body = blank.body_of("er-1", SALT, '{"data": "é"}')
    content = content_hash(SALT, '{"data": "é"}'.encode()).hex()
    assert body == '{"erased":"er-1","content":"' + content + '"}'
    assert blank.erased_by(body) == "er-1"
    assert blank.erased_by('{"specversion":"1.0"}') is None
    assert blank.body_of("er-1", None, "x") == '{"erased":"er-1","content":""}'


def test_a_run_keeps_its_figures_and_loses_what_names_anybody() -> None:
    row = RunRow(
        agent="desk", run_id="r-1", ticket="T-9", session="s", customer="c", error="e", handed_off_reason="w",
        handed_off_to="human", cost_usd="0.5", resolution="failed",
    )  # fmt: skip
    kept = blank.run_of(row)
    assert (kept.ticket, kept.session, kept.customer, kept.error, kept.handed_off_reason) == (None,) * 5
    assert (kept.handed_off_to, kept.cost_usd, kept.resolution) == ("human", "0.5", "failed")


@pytest.mark.parametrize(
    ("agent", "body", "is_meant"),
    [
        ("desk", said(run_id="r-1"), True),
        ("desk", said(run_id="r-11"), False),
        ("other", said(run_id="r-1"), False),
        ("desk", b"not json, of r-1.", True),
        ("desk", b"not json, of r-11", False),
        ("desk", "not json: c 7/é".encode(), True),
    ],
)
def test_a_message_of_a_run_is_meant_by_its_run_or_where_it_cannot_be_read_by_its_words(
    agent: str, body: bytes, is_meant: bool
) -> None:
    assert scope().has_run_event(agent, body) is is_meant


@pytest.mark.parametrize(
    ("subject", "body", "is_meant"),
    [
        ("midwatch.alert.desk.raised", said(alert_id="a", agent="desk", run_id="r-1"), True),
        ("midwatch.alert.desk.raised", said(alert_id="a", agent="desk", ticket="T-9"), True),
        ("midwatch.alert.desk.raised", said(alert_id="a", agent="desk", run_id="r-2"), False),
        ("midwatch.alert.desk.resolved", said(alert_id="known"), True),
        ("midwatch.alert.desk.resolved", said(alert_id="other"), False),
        ("midwatch.case.desk.closed", said(case_id=subjects.case_id("desk", "r-1")), True),
        ("midwatch.case.taker.offered", said(case={"case_id": subjects.case_id("desk", "r-1")}), True),
        ("midwatch.case.desk.closed", said(case_id=subjects.case_id("desk", "r-2")), False),
        ("midwatch.switch.desk.halted", said(key="runs.desk", target="r-1"), True),
        ("midwatch.switch.desk.halted", said(key="runs.desk", target="r-2"), False),
        ("midwatch.switch.desk.halted", said(key="agent.desk"), False),
        ("midwatch.review.desk.sampled", said(agent="desk", run_id="r-1"), True),
        ("midwatch.review._fleet.revealed", said(day="2026-11-26"), False),
        ("midwatch.hold._fleet.placed", said(hold_id="over"), True),
        ("midwatch.hold._fleet.placed", said(hold_id="in force", run_id="r-1"), False),
        ("midwatch.erasure._fleet.resolved", said(runs=[{"agent": "desk", "run_id": "r-1"}]), False),
    ],
)
def test_a_decision_is_meant_that_is_about_the_run_its_ticket_alert_or_case(
    subject: str, body: bytes, is_meant: bool
) -> None:
    assert scope(alerts=["known"], holds=["over"]).has_decision(subject, body) is is_meant


def test_what_is_said_of_an_alert_follows_it() -> None:
    one = scope()
    assert one.has_decision("midwatch.alert.desk.raised", said(alert_id="new", agent="desk", run_id="r-1"))
    assert one.has_decision("midwatch.alert.desk.acknowledged", said(alert_id="new", by="ann"))


@pytest.mark.parametrize(
    ("letter", "is_meant"),
    [
        ({"subject": "midwatch.run.desk.said", "data": said(run_id="r-1")}, True),
        ({"subject": "midwatch.run.desk.said", "data": said(run_id="r-2")}, False),
        ({"subject": "x", "data": b'{"customer": "c 7/\\u00e9"}'}, True),
        ({"subject": "x", "data": b"", "error": "ticket T-9 is unknown"}, True),
        ({"subject": "x", "data": b"T-99"}, False),
    ],
)
def test_a_dead_letter_is_meant_by_what_died_or_by_a_name_in_it(letter: dict[str, Any], is_meant: bool) -> None:
    whole = DeadLetter(
        **{"service": "logger", "reason": "failed", "error": "", "attempts": 1, "stream": "", "stream_seq": 0}
        | {"at": utc_now()} | letter
    )  # fmt: skip
    assert scope().has_letter(whole, b"") is is_meant


def test_a_letter_that_cannot_be_read_is_judged_by_its_bytes() -> None:
    assert scope().has_letter(None, b"\xff T-9 \xff")
    assert not scope().has_letter(None, b"\xff")


def test_runs_are_told_in_groups_that_fit_into_a_message() -> None:
    runs = [ErasedRun(agent="desk", run_id=f"r-{number:04}") for number in range(100)]
    groups = chunks(runs, 500)
    assert [run for group in groups for run in group] == runs
    assert all(sum(len(msgspec.json.encode(run)) for run in group) <= 500 for group in groups)
    assert chunks([ErasedRun(agent="desk", run_id="r" * 128)], 10) == [[ErasedRun(agent="desk", run_id="r" * 128)]]
    assert chunks([], 10) == []


def test_an_export_is_rewritten_with_its_manifest_and_again_changes_nothing(tmp_path: Path) -> None:
    body = '{"data": {"text": "planted"}}'
    event = {"agent": "desk", "run_id": "r-1", "id": "e", "place": 5, "body": body, "salt": SALT.hex(), "ticket": "T-9",
             "note": None, "leaf": "00"}  # fmt: skip
    other = event | {"run_id": "r-2", "body": "{}"}
    run = {"agent": "desk", "run_id": "r-1", "customer": "planted", "ticket": "T-9", "session": None, "error": "x",
           "handed_off_reason": None, "cost_usd": "1"}  # fmt: skip
    for name, rows in ((exports.EVENTS, [event, other]), (exports.RUNS, [run])):
        with gzip.open(tmp_path / name, "wb") as out:
            out.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
    files = [File(name=name, sha256="old", bytes=1, records=2) for name in (exports.EVENTS, exports.RUNS)]
    manifest = Manifest(
        id="x", made_at="", made_by="", host="", format="jsonl", filter=Filter(), counts={"events": 2}, streams=[],
        files=files,
    )  # fmt: skip
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    block = Block("desk", 3, "erasure", 0, 0, 0, b"", '{"erasure":"er-1"}', b"r", b"p", b"h", "2026-11-26T00:00:00Z")
    what = exports.Erased("er-1", frozenset({("desk", "r-1")}), frozenset(), (block,))

    assert exports.erase_from_export(tmp_path, what) == {"events": 1, "runs": 1, "alerts": 0}
    assert exports.erase_from_export(tmp_path, what) == {"events": 0, "runs": 0, "alerts": 0}

    with gzip.open(tmp_path / exports.EVENTS, "rb") as lines:
        first, second = (msgspec.json.decode(line) for line in lines)
    assert first == event | {"body": blank.body_of("er-1", SALT, body), "salt": None, "ticket": None}
    assert second == other
    written = msgspec.json.decode((tmp_path / "manifest.json").read_bytes())
    assert written["erasures"] == ["er-1"]
    raw = (tmp_path / exports.EVENTS).read_bytes()
    assert written["files"][0] == {
        "name": exports.EVENTS, "sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw), "records": 2,
    }  # fmt: skip
    assert [file["name"] for file in written["files"]] == [exports.EVENTS, exports.RUNS, exports.ERASURES]
    with gzip.open(tmp_path / exports.ERASURES, "rb") as lines:
        [added] = (msgspec.json.decode(line) for line in lines)
    assert (added["number"], added["kind"], added["head"]) == (3, "erasure", b"h".hex())


def test_a_folder_that_is_no_export_is_named(tmp_path: Path) -> None:
    what = exports.Erased("er-1", frozenset(), frozenset(), ())
    with pytest.raises(NoExport, match="is no export of a run log"):
        exports.erase_from_export(tmp_path, what)

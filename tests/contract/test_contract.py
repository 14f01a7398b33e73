"""The contract on the wire: hand-written messages round-trip, and what is published of it is what the code does."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from midwatch.contracts import budget, claims, codec, control, trial
from midwatch.contracts.governance import GOVERNANCE_EVENTS
from midwatch.contracts.runs import EVENT_LIMIT, RUN_EVENTS
from midwatch.runtime import contract_docs

EXAMPLES = Path(__file__).parent / "examples"
DOCS = Path(__file__).parents[2] / "docs" / "contract"
RUN = sorted(f"run.{event}" for event in RUN_EVENTS)
EVENTS = RUN + sorted(".".join(key) for key in GOVERNANCE_EVENTS)
VALUES = {
    "presence": control.Presence,
    "dead_letter": control.DeadLetter,
    "switch_record": control.SwitchRecord,
    "switch_map": control.SwitchMap,
    "card": control.Card,
    "route": control.Route,
    "case_claim": control.CaseClaim,
    "budget_reserve": budget.Reserve,
    "budget_commit": budget.Commit,
    "budget_reserved": budget.Reserved,
    "budget_committed": budget.Committed,
    "trial_turn": trial.TrialTurn,
    "trial_answer": trial.TrialAnswer,
    "claim_take": claims.Take,
    "claim_extend": claims.Hold,
    "claim_release": claims.Hold,
    "claim_taken": claims.Taken,
}


def example(name: str) -> dict:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def subject(name: str, agent: str = "refund-desk") -> str:
    noun, event = name.split(".")
    return f"midwatch.{noun}.{agent}.{event}"


def same(one: object, other: object) -> bool:
    """Equal as JSON, times compared as instants and not by how many zeros they are written with."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, str) and isinstance(other, str) and one.startswith("2026-") and "T" in one:
        return one.rstrip("Z").rstrip("0").rstrip(".") == other.rstrip("Z").rstrip("0").rstrip(".")
    return one == other


@pytest.mark.parametrize("name", EVENTS)
def test_a_hand_written_event_round_trips(name: str) -> None:
    body = json.dumps(example(name)).encode()
    written = json.loads(codec.encode(codec.decode(subject(name), body)))
    assert same(written, example(name)), (written, example(name))


@pytest.mark.parametrize("name", VALUES)
def test_a_hand_written_value_round_trips(name: str) -> None:
    written = json.loads(control.encode(msgspec.json.decode(json.dumps(example(name)), type=VALUES[name])))
    assert written.keys() == example(name).keys()
    assert same(msgspec.json.decode(json.dumps(written), type=VALUES[name]), msgspec.json.decode(
        json.dumps(example(name)), type=VALUES[name]))  # fmt: skip


@pytest.mark.parametrize("name", [*EVENTS, *VALUES])
def test_a_hand_written_message_obeys_its_published_schema(name: str) -> None:
    schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text())
    jsonschema.validate(example(name), schema, cls=jsonschema.Draft202012Validator)


def test_the_published_documents_have_not_drifted_from_the_structs() -> None:
    assert contract_docs.drift(DOCS) == []


def test_a_changed_document_is_noticed(tmp_path: Path) -> None:
    for path, text in contract_docs.files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "schemas" / "run.said.json").write_text("{}")
    (tmp_path / "schemas" / "run.gone.json").write_text("{}")
    assert contract_docs.drift(tmp_path) == ["schemas/run.gone.json", "schemas/run.said.json"]


@pytest.mark.parametrize("name", RUN)
def test_a_run_event_is_read_under_its_subjects_agent(name: str) -> None:
    event = codec.decode_run(subject(name), json.dumps(example(name)).encode())
    assert (event.agent, event.event, event.data.run_id) == ("refund-desk", name.split(".")[1], "run-8c1f")


def test_readers_ignore_unknown_fields() -> None:
    said = example("run.said")
    said["data"]["mood"] = "cross"
    said["extension"] = 1
    assert codec.decode_run(subject("run.said"), json.dumps(said).encode()).data.text == said["data"]["text"]


def changed(path: str, value: object, name: str = "run.model_called") -> bytes:
    message = example(name)
    *parents, last = path.split("/")
    place = message
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(message).encode()


REFUSALS = {
    "cut JSON": (subject("run.said"), b'{"specversion": "1.0', "malformed"),
    "no UTF-8": (subject("run.said"), b"\xff\xfe", "malformed"),
    "a wrong type": (subject("run.model_called"), changed("data/seq", "two"), "malformed"),
    "a negative cost": (subject("run.model_called"), changed("data/cost_usd", "-0.01"), "malformed"),
    "a cost that is a float": (subject("run.model_called"), changed("data/cost_usd", 0.01), "malformed"),
    "negative tokens": (subject("run.model_called"), changed("data/usage/input_tokens", -1), "malformed"),
    "a time without zone": (subject("run.model_called"), changed("time", "2026-11-22T02:00:00"), "malformed"),
    "an unknown version": (subject("run.said"), changed("type", "midwatch.run.said.v2", "run.said"), "unknown_version"),
    "a type of another subject": (subject("run.started"), changed("id", "x", "run.said"), "malformed"),
    "another agent in the body": (subject("run.said", "order-desk"), changed("id", "x", "run.said"), "wrong_agent"),
    "another agent in the source": (
        subject("run.said"), changed("source", "/agents/order-desk/pod-1", "run.said"), "wrong_agent"),
    "an agent's name with a dot": ("midwatch.run.refund.desk.said", changed("id", "x", "run.said"), "bad_subject"),
    "an event that is none": ("midwatch.run.refund-desk.exploded", changed("id", "x", "run.said"), "bad_subject"),
    "an empty id": (subject("run.said"), changed("id", "", "run.said"), "malformed"),
    "a message over the limit": (subject("run.said"), changed("data/text", "x" * EVENT_LIMIT, "run.said"), "oversized"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_what_breaks_the_contract_is_refused_with_its_reason(what: str) -> None:
    where, body, reason = REFUSALS[what]
    with pytest.raises(codec.Refused) as refused:
        codec.decode_run(where, body)
    assert refused.value.reason == reason
    assert str(refused.value)


def test_a_switch_value_by_hand_needs_only_its_state() -> None:
    record = control.decode_record(b'{"state": "halted"}')
    assert record is not None
    assert record.state == "halted"


@pytest.mark.parametrize("value", [b"", b"halted", b"{}", b'{"state": "paused"}', b"\xff", b"[1]"])
def test_an_unreadable_switch_value_is_no_record(value: bytes) -> None:
    assert control.decode_record(value) is None
    assert value == b"{}" or control.decode_map(value) is None

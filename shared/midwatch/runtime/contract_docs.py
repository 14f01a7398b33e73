"""The published form of the contract: JSON Schemas and an AsyncAPI document, generated from the structs.

`python -m midwatch.runtime.contract_docs` writes them to docs/contract; `--check` fails where they have drifted.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from midwatch.contracts import budget, claims, control, subjects, trial
from midwatch.contracts.envelope import Envelope, event_type
from midwatch.contracts.governance import GOVERNANCE_EVENTS
from midwatch.contracts.runs import RUN_EVENTS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_STREAMS = {
    "run": subjects.RUNS,
    "alert": subjects.GOVERNANCE,
    "switch": subjects.GOVERNANCE,
    "review": subjects.GOVERNANCE,
    "case": subjects.GOVERNANCE,
    "digest": subjects.GOVERNANCE,
    "evidence": subjects.GOVERNANCE,
    "hold": subjects.GOVERNANCE,
    "erasure": subjects.GOVERNANCE,
    "eval": subjects.GOVERNANCE,
    "audit": subjects.GOVERNANCE,
}
_REPLY = "{reply}"  # the subject that the request asks to be answered on
_VALUES: dict[str, tuple[Any, str]] = {
    "presence": (control.Presence, "midwatch.presence.{agent}.{instance}"),
    "dead_letter": (control.DeadLetter, "midwatch.dead.{service}"),
    "switch_record": (control.SwitchRecord, "midwatch.control.agent.{agent}"),
    "switch_map": (control.SwitchMap, "midwatch.control.runs.{agent}"),
    "card": (control.Card, "midwatch.control.card.{agent}"),
    "route": (control.Route, "midwatch.control.route.{agent}"),
    "case_claim": (control.CaseClaim, "$KV.MIDWATCH_CASES.{agent}.{run}"),
    "budget_reserve": (budget.Reserve, "midwatch.budget.{agent}.reserve"),
    "budget_commit": (budget.Commit, "midwatch.budget.{agent}.commit"),
    "budget_reserved": (budget.Reserved, _REPLY),
    "budget_committed": (budget.Committed, _REPLY),
    "claim_take": (claims.Take, "midwatch.claim.{agent}.take"),
    "claim_extend": (claims.Hold, "midwatch.claim.{agent}.extend"),
    "claim_release": (claims.Hold, "midwatch.claim.{agent}.release"),
    "claim_taken": (claims.Taken, _REPLY),
    "trial_turn": (trial.TrialTurn, "midwatch.trial.{agent}.turn"),
    "trial_answer": (trial.TrialAnswer, _REPLY),
}


def _events() -> list[tuple[str, str, type[Any]]]:
    runs = [("run", event, data) for event, data in RUN_EVENTS.items()]
    return runs + [(noun, event, data) for (noun, event), data in GOVERNANCE_EVENTS.items()]


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of each message, by the name of its file without the ending."""
    found: dict[str, dict[str, Any]] = {}
    for noun, event, data in _events():
        schema = msgspec.json.schema(Envelope[data])  # type: ignore[valid-type]
        envelope = next(value for key, value in schema["$defs"].items() if key.startswith("Envelope"))
        envelope["properties"]["type"] = {"const": event_type(noun, event)}
        found[f"{noun}.{event}"] = {"$schema": _DIALECT, "title": event_type(noun, event), **schema}
    for name, (type_, _) in _VALUES.items():
        found[name] = {"$schema": _DIALECT, "title": name, **msgspec.json.schema(type_)}
    return found


def _channel(address: str, message: str, stream: str | None) -> dict[str, Any]:
    names = [part[1:-1] for part in address.split(".") if part.startswith("{")]
    channel: dict[str, Any] = {
        "address": address,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }
    if names:
        channel["parameters"] = {name: {"description": f"Name of the {name}."} for name in names}
    if stream:
        channel["bindings"] = {"nats": {}}
        channel["description"] = f"Kept by the stream {stream}."
    return channel


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: every subject with the schema of what is published there."""
    channels: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for noun, event, data in _events():
        name = f"{noun}.{event}"
        address = f"midwatch.{noun}.{{agent}}.{event}"
        channels[name] = _channel(address, name, _STREAMS[noun])
        messages[name] = {
            "name": event_type(noun, event),
            "summary": " ".join((data.__doc__ or "").split()),
            "contentType": subjects.CLOUDEVENTS_JSON,
            "payload": {"$ref": f"schemas/{name}.json"},
        }
    for name, (type_, address) in _VALUES.items():
        channels[name] = _channel(address, name, None)
        summary = " ".join((getattr(type_, "__doc__", None) or "").split()) if isinstance(type_, type) else ""
        messages[name] = {"name": name, "contentType": "application/json", "payload": {"$ref": f"schemas/{name}.json"}}
        if summary and name != "switch_map":
            messages[name]["summary"] = summary
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Midwatch",
            "version": "1",
            "description": "What crosses a process boundary in Midwatch. CloudEvents 1.0 in structured JSON on NATS.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": subjects.CLOUDEVENTS_JSON,
        "channels": channels,
        "components": {"messages": messages},
    }


def files() -> dict[str, str]:
    """Every published file by its path below docs/contract."""
    found = {f"schemas/{name}.json": schema for name, schema in schemas().items()}
    found["asyncapi.json"] = asyncapi()
    return {path: json.dumps(value, indent=2, sort_keys=True) + "\n" for path, value in found.items()}


def drift(folder: Path) -> list[str]:
    """Files below `folder` that differ from the structs, are missing, or are of no struct."""
    wanted = files()
    present = {str(path.relative_to(folder)) for path in (folder / "schemas").glob("*.json")}
    stale = sorted(present - set(wanted))
    return stale + [
        path
        for path, text in sorted(wanted.items())
        if not (folder / path).is_file() or (folder / path).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Writes the files, or with `--check` names those that have drifted and returns 1."""
    folder = Path("docs/contract")
    if "--check" in arguments:
        drifted = drift(folder)
        for path in drifted:
            sys.stderr.write(f"docs/contract/{path} has drifted: run `make contract` and commit it\n")
        return 1 if drifted else 0
    for path, text in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

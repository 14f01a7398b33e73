"""Cases, outcomes and files of an eval set for tests: one call makes one."""

from collections import Counter
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner, Result

from midwatch_services.commands import evals
from midwatch_services.evals.case import Case, Expect, Recorded
from midwatch_services.evals.outcome import Called, Outcome

SMALLEST = """\
case: duplicate-charge
conversation:
  - I was charged twice for order A-1001.
"""


def a_case(name: str = "duplicate-charge", **fields: Any) -> Case:
    """A case of `desk` with one turn, unless `fields` say otherwise; those of `Expect` go there."""
    asked = {key: fields.pop(key) for key in list(fields) if key in Expect.__dataclass_fields__}
    made = {"agent": "desk", "turns": ("I was charged twice for order A-1001.",), **fields}
    return Case(name=name, expect=Expect(**asked), **made)


def called(tool: str, kind: str = "write", error: str | None = None, **arguments: Any) -> Called:
    return Called(tool=tool, arguments=arguments, kind=kind, error=error)  # type: ignore[arg-type]


def recorded(tool: str, kind: str = "read", result: Any = "ok", **arguments: Any) -> Recorded:
    return Recorded(tool, arguments, result, kind=kind)  # type: ignore[arg-type]


def outcome(*calls: Called, said: str = "Your refund is on its way.", **fields: Any) -> Outcome:
    return Outcome(said=[said], calls=list(calls), **fields)


def put(folder: Path, name: str, text: str) -> Path:
    """A file of the eval set of `desk`."""
    path = folder / "evals" / "desk" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def midwatch(*arguments: str, answer: str | None = None) -> Result:
    """`midwatch eval …`."""
    app = typer.Typer()
    app.callback()(lambda: None)
    evals.register(app)
    return CliRunner().invoke(app, ["eval", *arguments], input=answer)


# A count over published runs that shares nothing with what it is held against.


def writes_of(tools: dict[str, Any], domain: str) -> set[str]:
    """The agent's own tools that write, from `policies/tools.json`."""
    return {tool["name"] for tool in tools[domain]["agent"] if tool["type"] == "write"}


def counted(run: dict[str, Any], writes: set[str]) -> bool:
    """Whether the run, as its source file has it, came to its end and made the expected writes and no others; and
    handed off, where the published reward asks for the actions themselves and a hand-off is among them."""
    info = (run["outcome"] or {}).get("reward_info") or {}
    expected = [one for one in run["gold_actions"] or [] if one.get("requestor") in (None, "assistant")]
    if run["termination_reason"] not in (None, "user_stop", "agent_stop"):
        return False
    made, handed_off = Counter(), False  # type: ignore[var-annotated]
    for name, args, failed in _results(run["messages"]):
        handed_off = handed_off or (name == "transfer_to_human_agents" and not failed)
        if name in writes and not failed:
            made[name, _flat(args)] += 1
    wanted = Counter((one["name"], _flat(one["args"])) for one in expected if one["name"] in writes)
    must = "ACTION" in (info.get("reward_basis") or [])
    must = must and any(one["name"] == "transfer_to_human_agents" for one in expected)
    return made == wanted and (handed_off or not must)


def _results(messages: list[dict[str, Any]]) -> list[tuple[str, Any, bool]]:
    """The agent's calls with results, paired in order: ids repeat."""
    found, open_calls = [], []  # type: ignore[var-annotated]
    for message in messages:
        if message["role"] == "tool":
            if message.get("requestor") == "user" or not open_calls:
                continue
            at = next((at for at, call in enumerate(open_calls) if call["id"] == message["tool_call_id"]), 0)
            call = open_calls.pop(at)
            found.append((call["name"], call["args"], bool(message.get("error"))))
        else:
            calls = message.get("tool_calls") or []
            open_calls = [call for call in calls if (call.get("requestor") or message["role"]) == "assistant"]
    return found


def _flat(value: Any) -> Any:
    """JSON that can be counted: 2.0 is 2, the order of keys does not count."""
    if isinstance(value, dict):
        return tuple(sorted((key, _flat(one)) for key, one in value.items()))
    if isinstance(value, list):
        return ("list", *map(_flat, value))
    return ("bool", value) if isinstance(value, bool) else value

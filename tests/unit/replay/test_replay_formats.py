"""Run files are told apart by their content, and a bad line spoils no other."""

import gzip
import json
from pathlib import Path

import pytest

from midwatch_services.replay.formats import Bad, Found, UnknownFormat, Unreadable, read


def agentrun(run_id: str, **fields: object) -> dict[str, object]:
    run = {"run_id": run_id, "schema": "agentrun/1", "agent": {"name": "desk", "model": "m-1"}, "domain": "shop"}
    return {**run, "task_id": "7", "messages": [{"role": "user", "content": "Hello"}], **fields}


def tau2(*simulations: object) -> dict[str, object]:
    return {
        "timestamp": "2025-08-01T00:00:00",
        "info": {
            "agent_info": {"implementation": "desk", "llm": "m-1", "llm_args": {"api_key": "sk-secret"}},
            "environment_info": {"domain_name": "shop", "policy": "Be kind."},
        },
        "tasks": [],
        "simulations": list(simulations),
    }


SIMULATION = {
    "id": "sim-1",
    "task_id": "7",
    "start_time": "2025-08-01T16:20:44",
    "end_time": "2025-08-01T16:20:50",
    "termination_reason": "user_stop",
    "reward_info": {"reward": 1.0},
    "trial": 2,
    "messages": [
        {"role": "user", "content": "Hello", "timestamp": "2025-08-01T16:20:45", "cost": 0.1, "usage": None},
        {
            "role": "assistant",
            "content": None,
            "timestamp": "2025-08-01T16:20:46",
            "cost": 0.25,
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
            "raw_data": {"finish_reason": "tool_calls", "model": "m-1-2025"},
            "tool_calls": [{"id": "c", "name": "look", "arguments": {"id": 1}, "requestor": "assistant"}],
        },
        {"role": "tool", "id": "c", "content": "found", "requestor": "assistant", "error": False},
    ],
}


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def run_ids(path: Path) -> list[str]:
    return [item.run.run_id if isinstance(item, Found) else item.place for item in read(path)]


def test_agentrun_lines_are_read_in_their_order(tmp_path: Path) -> None:
    assert run_ids(write_lines(tmp_path / "x", agentrun("a"), agentrun("b"))) == ["a", "b"]


def test_a_packed_file_is_known_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "runs.txt"
    path.write_bytes(gzip.compress((json.dumps(agentrun("a")) + "\n").encode()))
    assert run_ids(path) == ["a"]


def test_a_bad_line_is_named_with_its_number_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x", "{broken", agentrun("a"), "", {"schema": "agentrun/1"}, agentrun("b"))
    assert run_ids(path) == [f"{path}:1", "a", f"{path}:4", "b"]


def test_a_line_of_another_version_is_bad_and_says_which(tmp_path: Path) -> None:
    items = list(read(write_lines(tmp_path / "x", agentrun("a"), agentrun("b", schema="agentrun/9"))))
    assert isinstance(items[1], Bad)
    assert items[1].error == "schema 'agentrun/9' is not 'agentrun/1'"


def test_a_packed_file_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    body = "".join(json.dumps(agentrun(f"run-{n}", note="x" * 5000 + str(n))) + "\n" for n in range(200))
    path.write_bytes(gzip.compress(body.encode())[:-100])
    items = list(read(path))
    assert isinstance(items[0], Found)
    assert isinstance(items[-1], Bad)
    assert "breaks here" in items[-1].error


def test_positions_rise_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x", agentrun("a"), agentrun("b"))
    assert [item.position for item in read(path)][-1] == path.stat().st_size


def test_a_tau2_result_file_reads_as_runs(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(tau2(SIMULATION), indent=2))
    (found,) = read(path)
    assert isinstance(found, Found)
    run = found.run
    assert (run.run_id, run.domain, run.task_id, run.agent.name, run.agent.model) == (
        "sim-1",
        "shop",
        "7",
        "desk",
        "m-1",
    )
    assert (run.timing, run.started_at, run.termination_reason) == ("recorded", "2025-08-01T16:20:44", "user_stop")
    call = run.messages[1]
    assert call.tool_calls is not None
    assert (call.model, call.finish_reason, call.cost_usd) == ("m-1-2025", "tool_calls", 0.25)
    assert (call.tool_calls[0].name, call.tool_calls[0].args) == ("look", {"id": 1})
    assert (run.messages[2].tool_call_id, run.messages[2].error) == ("c", False)


def test_a_bad_simulation_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(tau2({"id": "no-messages"}, SIMULATION)))
    assert run_ids(path) == [f"{path}: simulation 0", "sim-1"]


def test_a_simulation_without_times_has_none(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(tau2({**SIMULATION, "start_time": None})))
    (found,) = read(path)
    assert isinstance(found, Found)
    assert found.run.timing == "absent"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        ("a,b\n1,2\n", "it is not JSON"),
        ('{"airline": {}, "retail": {}}', "a JSON object with the keys 'airline', 'retail'"),
        ('{"kind": 1}\n{"kind": 2}\n', "lines that begin with a JSON object with the keys 'kind'"),
        ("[1, 2]", "a JSON list"),
        ('{"simulations": [], "info": {}}', "it looks like a tau2 result file"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(UnknownFormat, match=said):
        list(read(path))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        list(read(tmp_path / "nope"))

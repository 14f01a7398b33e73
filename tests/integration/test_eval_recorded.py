"""The target `recorded:FILE`: what happened, as the file has it."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eval_replay_helpers import case, results
from kept import empty_log, save
from logged import received
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.evals.calling import BadTarget
from midwatch_services.evals.outcome import Called, Outcome
from midwatch_services.evals.targets.base import NotReplayed
from midwatch_services.evals.targets.recorded import load
from midwatch_services.evals.totals import Totals
from midwatch_services.logger.transfer.export import export as write_export
from midwatch_services.logger.transfer.layout import Filter


def run(run_id: str, model: str, said: str, *, trial: int = 0, task: str = "7") -> dict[str, Any]:
    return {
        "run_id": run_id, "schema": "agentrun/1", "agent": {"name": "desk", "model": model}, "domain": "shop",
        "task_id": task, "source": {"trial": trial}, "termination_reason": "user_stop",
        "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": said}],
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    runs = [
        run("own", "acme/m-1", "own"), run("b", "acme/m-2", "second", trial=1), run("a", "acme/m-2", "first"),
        run("other", "acme/m-2", "of another task", task="8"),
    ]  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in runs))
    return path


async def test_a_case_gets_the_run_that_it_was_made_from(file: Path) -> None:
    one = case(run_id="own", task="shop/7")
    found = await results([one], load(file, None, [one]), repeats=2)
    assert [attempt.outcome.said for attempt in found["twice"].attempts] == [["own"], ["own"]]


@pytest.mark.parametrize("model", ["m-2", "acme/m-2"])
async def test_another_model_gets_its_own_runs_of_the_task_one_after_another(file: Path, model: str) -> None:
    one = case(run_id="own", task="shop/7")
    found = await results([one], load(file, model, [one]), repeats=3)
    assert [attempt.outcome.said for attempt in found["twice"].attempts] == [["first"], ["second"], ["first"]]


async def test_a_case_without_a_run_is_one_line_and_the_rest_still_run(file: Path) -> None:
    cases = [case("lost", run_id="gone", task="shop/9"), case("found", task="shop/8")]
    target = load(file, "m-2", cases)
    with pytest.raises(NotReplayed):
        await target.replay(cases[0], 0)
    found = await results(cases, target)
    totals = Totals()
    totals.add(found["lost"])
    assert totals.broken == [
        "lost: the file holds no run by m-2 for this case: neither 'gone' nor one of task 'shop/9'"
    ]
    assert found["found"].passed


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("m-3", None, "it holds no run by 'm-3': it has acme/m-1, acme/m-2"),
        (None, "hello", "it is no run file that this release reads: it is not JSON"),
    ],
)
def test_a_file_that_cannot_serve_is_one_line(file: Path, model: str | None, text: str | None, said: str) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadTarget) as found:
        load(file, model, [case(task="shop/7")])
    assert str(found.value).startswith(f"--target recorded:{file}: {said}")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match="cannot be read"):
        load(tmp_path / "none.jsonl", None, [])


@pytest.mark.data
async def test_published_runs_did_what_an_independent_reading_of_their_file_says(data_dir: Path) -> None:
    path = data_dir / "agent-runs" / "runs.jsonl.gz"
    wanted: dict[str, tuple[Counter[str], bool, int]] = {}
    with gzip.open(path) as lines:
        for line in lines:
            one = json.loads(line)
            made = [
                call["name"]
                for message in one["messages"]
                if message["role"] == "assistant"
                for call in message.get("tool_calls") or ()
                if call.get("requestor") != "user"
            ]
            transferred = any(
                message["role"] == "tool" and message.get("tool_name") == "transfer_to_human_agents"
                for message in one["messages"]
                if not message.get("error")
            )
            wanted[one["run_id"]] = (Counter(made), transferred, len(one["messages"]))
    cases = [case(run_id, run_id=run_id, kinds={"transfer_to_human_agents": "write"}) for run_id in wanted]
    found = await results(cases, load(path, None, cases))
    outcomes = {name: one.attempts[0].outcome for name, one in found.items()}
    assert len(outcomes) == 653
    calls = {name: Counter(call.tool for call in one.calls) for name, one in outcomes.items()}
    assert calls == {name: one[0] for name, one in wanted.items()}
    assert {name: one.handed_off for name, one in outcomes.items()} == {name: one[1] for name, one in wanted.items()}


async def test_an_exported_log_serves_as_well(tmp_path: Path) -> None:
    url = Settings().database_for("logger")
    Database(url).close()
    common = {"run_id": "r-7", "version": "v1", "labels": {"domain": "shop", "task": "7"}}
    events = [
        received("finished", **common, seq=5, resolution="handed_off"),
        received("started", **common, seq=0, input="I was charged twice."),
        received("model_called", **common, seq=1, model="gpt-4.1", cost_usd="0.02"),
        received("tool_called", **common, seq=2, tool="lookup_order", arguments={"order_id": "A-1"}, result=[1]),
        received("said", **common, seq=3, by="agent", text="A colleague will see to it."),
        received("handed_off", **common, seq=4, to="human", reason="a lawyer"),
        received("started", run_id="r-8", version="v2", input="Hello"),
        received("finished", run_id="r-8", version="v2", seq=1, resolution="resolved", output="Hello yourself."),
    ]
    with empty_log(url) as database:
        save(database, events)
        write_export(database, tmp_path / "out", Filter(), "jsonl", by="sam", now=datetime.now(UTC))
    cases = [case("by run", run_id="r-8"), case("by task", task="shop/7", kinds={"lookup_order": "read"})]
    found = await results(cases, load(tmp_path / "out", None, cases))
    outcomes = {name: one.attempts[0].outcome for name, one in found.items()}
    assert outcomes["by run"] == Outcome(said=["Hello yourself."])
    assert outcomes["by task"] == Outcome(
        said=["A colleague will see to it."], handed_off=True, model_calls=1, cost_usd="0.02", cost_basis="reported",
        calls=[Called(tool="lookup_order", arguments={"order_id": "A-1"}, result=[1], kind="read", answered="own")],
    )  # fmt: skip


def test_a_folder_that_is_no_export_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadTarget) as found:
        load(tmp_path, None, [])
    assert str(found.value) == f"--target recorded:{tmp_path}: {tmp_path} is no export of a run log: " + (
        "there is no manifest.json in it"
    )

"""How long an eval set takes to replay, and how much memory, with an agent that answers at once.

The cases are the published runs of ../shared/data: what their customers said, and their recorded calls. The agent makes
one model call and two tool calls a turn, and answers; none of its calls was recorded so, and each is answered by the
nearest. Each measurement is a process of its own, from its start to the results on the disk.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import load
from nats.aio.msg import Msg

from midwatch.contracts import subjects
from midwatch.runtime.nats_server import start_nats
from midwatch_services.evals import keep
from midwatch_services.evals.case import Case, Expect, Recorded
from midwatch_services.evals.outcome import Finding, Outcome, Results
from midwatch_services.evals.replay import Judging, replay
from midwatch_services.evals.targets.opening import Wanted, opened
from midwatch_services.evals.totals import Totals

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LIMIT = 30.0  # seconds that 200 cases may take
SMALL, LARGE = (40, 120) if load.QUICK else (200, 2_000)
AGENT = """
async def answer(run, turn):
    await run.model(complete, model="gpt-4.1", messages=turn.messages)
    words = turn.text.split() or [""]
    found = []
    for tool, argument in (("get_user_details", words[-1]), ("get_reservation_details", words[0])):
        try:
            found.append(await run.tool(tool, print, id=argument))
        except Exception as error:
            found.append(error)
    return f"I looked it up: {found}"[:500]

def complete(*, model, messages):
    return {"model": model, "usage": {"prompt_tokens": 100 * len(messages), "completion_tokens": 40}}
"""


def real_cases(data: Path, count: int) -> list[Case]:
    """So many cases of published runs in which the customer says something."""
    found: list[Case] = []
    with gzip.open(data / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            run = json.loads(line)
            said = tuple(m["content"] for m in run["messages"] if m["role"] == "user" and m["content"])
            if said:
                found.append(Case(run["run_id"], "bench-desk", said, Expect(says=("looked",)), recorded=_calls(run)))
            if len(found) == count:
                break
    return found


def _calls(run: dict[str, Any]) -> tuple[Recorded, ...]:
    open_calls: list[dict[str, Any]] = []
    recorded = []
    for message in run["messages"]:
        open_calls += message.get("tool_calls") or ()
        if message["role"] == "tool" and open_calls:
            call = open_calls.pop(0)
            recorded.append(Recorded(call["name"], call["args"], message["content"]))
    return tuple(recorded)


def many(cases: list[Case], count: int) -> Iterator[Case]:
    """So many cases, made as they are asked for."""
    for number, one in enumerate(islice(cycle(cases), count)):
        yield Case(f"{one.name}-{number}", one.agent, one.turns, one.expect, recorded=one.recorded)


def evaluate(case: Case, outcome: Outcome, judged: bool | None, why: str) -> list[Finding]:
    return [Finding(criterion="says", ok=bool(outcome.said), said="it said something")]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The same agent, asked for one answer after another."""
    last = asked["messages"][-1]
    if last["role"] == "tool":
        return {"say": f"I looked it up: {last.get('result')}"[:500]}
    words = last["text"].split() or [""]
    calls = [
        {"tool": "get_user_details", "arguments": {"id": words[-1]}, "id": "1"},
        {"tool": "get_reservation_details", "arguments": {"id": words[0]}, "id": "2"},
    ]
    usage = {"prompt_tokens": 100 * len(asked["messages"]), "completion_tokens": 40}
    return {"calls": calls, "model": "gpt-4.1", "usage": usage}


@contextlib.contextmanager
def http_agent() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps(answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@contextlib.asynccontextmanager
async def target_of(kind: str, folder: Path) -> Any:
    if kind == "module":
        (folder / "agent.py").write_text(AGENT)
        yield Wanted(f"{folder / 'agent.py'}:answer", "bench")
    elif kind == "http":
        with http_agent() as url:
            yield Wanted(url, "bench")
    else:
        async with await start_nats(folder / "nats", sync_interval="2m") as server:
            client = await load.connect(server.url)

            async def heard(msg: Msg) -> None:
                await msg.respond(json.dumps(answer(json.loads(msg.data))).encode())

            await client.subscribe(subjects.trial("bench-desk"), cb=heard)
            await client.flush()
            yield Wanted("nats", "bench", nats_url=server.url)
            await client.close()


async def one(kind: str, count: int, data: Path) -> dict[str, Any]:
    """Replays so many cases once. Seconds, and the most memory that this process and the agent's had."""
    cases = real_cases(data, SMALL)
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as name:
        async with target_of(kind, Path(name)) as wanted:
            began = time.perf_counter()
            totals, calls, path = Totals(), 0, Path(name) / "results.json"
            with keep.ResultsFile(path) as file:
                async with opened(wanted, cases) as target:
                    async for result in replay(many(cases, count), target, Judging(evaluate, lambda _: (True, ""))):
                        file.add(totals.cases.count, result)
                        totals.add(result)
                        calls += len(result.attempts[0].outcome.calls)
                file.finish(Results(agent="bench-desk", version="bench", target=kind, at=""))
            seconds, size = time.perf_counter() - began, path.stat().st_size
    assert totals.cases.passed == count, totals.broken[:3]
    own, agents = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "own": own, "agents": agents, "calls": calls, "mb": size / 1e6}


def measured(kind: str, count: int, data: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--data", str(data), "--one", kind, str(count)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench_evals: {kind} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(name: str, value: float, unit: str, target: float, peer: str, peer_value: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "peer": peer,
            "peer_value": round(peer_value, 3), "ratio": round(value / peer_value, 3)}  # fmt: skip


def measure(data: Path) -> Iterator[dict[str, Any]]:
    small = measured("module", SMALL, data)
    what = f"replay of {SMALL} cases with {small['calls']:,} tool calls"
    yield row(f"{what}, the agent as a function", small["seconds"], "s", LIMIT, "limit, s", LIMIT)
    for kind in ("http", "nats"):
        found = measured(kind, SMALL, data)
        yield row(f"{what}, the agent over {kind}", found["seconds"], "s", LIMIT, "as a function, s", small["seconds"])
    large = measured("module", LARGE, data)
    for whose, key in (("the replay", "own"), ("the agent's process", "agents")):
        yield row(
            f"most memory of {whose}, {LARGE:,} cases, {large['mb']:.0f} MB of results", large[key], "MB",
            round(1.5 * small[key]), f"with {SMALL} cases, MB", small[key],
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with agent-runs")
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "COUNT"), help="one measurement, in this process")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"bench_evals: the real runs are not in {options.data}: name their folder with --data")
    if options.one:
        print(json.dumps(asyncio.run(one(options.one[0], int(options.one[1]), options.data))))
        return
    for found in measure(options.data):
        print(json.dumps(found) if options.json else f"{found['name']}: {found['value']} {found['unit']}")


if __name__ == "__main__":
    main()

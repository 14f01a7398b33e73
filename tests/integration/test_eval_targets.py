"""The user's own code in a replay: whatever it does, each case has a clear line, and the rest still run."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from eval_replay_helpers import agent_file, case, outcomes, results
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch_services.evals.calling import BadTarget
from midwatch_services.evals.targets.module import ModuleTarget
from midwatch_services.evals.targets.opening import Wanted, opened

GOOD = """
import midwatch

async def answer(run, turn):
    reply = await run.model(complete, model="gpt-4.1", messages=turn.messages)
    order = await run.tool("lookup_order", lookup_order, order_id="A-1001")
    await run.tool("issue_refund", issue_refund, order_id="A-1001", amount=order["charges"][0])
    return f"{turn.number}: {reply['choices'][0]['message']['content']}"

async def complete(*, model, messages):
    usage = {"prompt_tokens": 900, "completion_tokens": 40}
    return {"model": model, "choices": [{"message": {"content": f"{len(messages)} messages"}}], "usage": usage}

def lookup_order(order_id):
    raise SystemExit("the real tool was called")

def issue_refund(order_id, amount):
    open("refunded", "w").close()
"""
SEVERAL = """
import asyncio, os, signal, time

async def answer(run, turn):
    wish = turn.text
    if wish == "raise":
        raise ValueError("no order\\nin the text")
    if wish == "exit":
        os._exit(3)
    if wish == "leave":
        raise SystemExit(4)
    if wish == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if wish == "wait":
        await asyncio.Event().wait()
    if wish == "block":
        time.sleep(600)
    if wish == "swallow":
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
    await run.tool("lookup_order", print, order_id="A-1001")
    return f"I heard {wish}."
"""
THREADS = """
import threading

def answer(run, turn):
    if turn.text == "wait":
        threading.Event().wait()
    order = run.tool("lookup_order", print, order_id="A-1001")
    return f"{turn.text}: {order['charges'][0]}"
"""


async def test_the_agents_tools_are_answered_and_never_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = case(turns=("I was charged twice.", "Thank you."))
    found = (await outcomes([one], agent_file(tmp_path, GOOD)))["twice"]
    assert found.error is None
    assert found.said == ["1: 1 messages", "2: 3 messages"], "the conversation so far, with the agent's own answers"
    assert [(call.tool, call.answered, call.kind) for call in found.calls] == [
        ("lookup_order", "recorded", "read"), ("issue_refund", "recorded", "write"),
    ] * 2  # fmt: skip
    assert (found.model_calls, found.cost_usd, found.cost_basis) == (2, "0.00424", "priced")
    assert not (tmp_path / "refunded").exists()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("raise", "the agent raised ValueError: no order in the text (my_agent.py:7)"),
        ("leave", "the agent raised RuntimeError: SystemExit(4) (my_agent.py:11)"),
        ("exit", "the agent's process ended with exit code 3"),
        ("segfault", "the agent's process ended: it was killed by SIGSEGV"),
        ("wait", "the agent gave no answer to turn 1 within 0.5 s"),
        ("swallow", "the agent gave no answer to turn 1 within 0.5 s"),
        ("block", "the agent blocked its process for more than 0.5 s and was killed"),
    ],
)
async def test_one_case_that_goes_wrong_takes_no_other_with_it(wish: str, said: str, tmp_path: Path) -> None:
    cases = [case(f"c{number}", turns=(f"order {number}",)) for number in range(10)]
    cases.insert(7, case("wrong", turns=(wish,)))
    found = await outcomes(cases, agent_file(tmp_path, SEVERAL), within=0.5)
    assert found.pop("wrong").error == said
    assert {name: (one.error, one.said) for name, one in found.items()} == {
        f"c{number}": (None, [f"I heard order {number}."]) for number in range(10)
    }


async def test_several_that_go_wrong_at_once_are_told_apart(tmp_path: Path) -> None:
    wishes = ("exit", "block", "fine", "raise", "segfault", "also fine")
    cases = [case(wish, turns=(wish,)) for wish in wishes]
    found = await outcomes(cases, agent_file(tmp_path, SEVERAL), within=0.5)
    assert {name: one.error for name, one in found.items()} == {
        "exit": "the agent's process ended with exit code 3",
        "block": "the agent blocked its process for more than 0.5 s and was killed",
        "fine": None,
        "raise": "the agent raised ValueError: no order in the text (my_agent.py:7)",
        "segfault": "the agent's process ended: it was killed by SIGSEGV",
        "also fine": None,
    }


async def test_no_case_is_charged_with_the_time_in_which_another_blocked_the_loop(tmp_path: Path) -> None:
    code = "import asyncio, time\nasync def answer(text):\n    for _ in range(4):\n        time.sleep(0.1)\n"
    code += "        await asyncio.sleep(0)\n    return 'Done.'\n"
    found = await outcomes([case(f"c{number}") for number in range(8)], agent_file(tmp_path, code), within=1.0)
    assert {one.error for one in found.values()} == {None}
    assert max(one.seconds for one in found.values()) > 2.0, "all together they took longer than one may"


async def test_an_agent_without_asyncio_runs_in_threads(tmp_path: Path) -> None:
    cases = [case(wish, turns=(wish,)) for wish in ("one", "wait", "two")]
    found = await outcomes(cases, agent_file(tmp_path, THREADS), within=0.5)
    assert found["wait"].error == "the agent gave no answer to turn 1 within 0.5 s"
    assert (found["one"].said, found["two"].said) == (["one: 19.5"], ["two: 19.5"])


async def test_turns_after_a_hand_off_are_a_persons(tmp_path: Path) -> None:
    code = "def answer(run, turn):\n    run.hand_off('a lawyer is mentioned', 'charged twice')\n"
    found = (await outcomes([case(turns=("My lawyer writes.", "Hello?"))], agent_file(tmp_path, code)))["twice"]
    assert (found.handed_off, found.said, found.error) == (True, [], None)


@pytest.mark.parametrize(
    "code",
    [
        "async def answer(desk, text):\n    async with desk.run(input=text) as run:\n        run.finish('Hello.')\n",
        "def answer(desk, text):\n    with desk.run(input=text) as run:\n        run.finish('Hello.')\n",
        "def answer(text):\n    return 'Hello.'\n",
        "import midwatch\nasync def answer(text):\n    async with midwatch.connect() as mw:\n"
        "        @mw.agent('refund-desk', version='1').handles\n"
        "        async def handle(ticket, run):\n            return 'Hello.'\n"
        "        return await handle(text)\n",
    ],
    ids=["an agent", "an agent in threads", "a text", "its own connection"],
)  # fmt: skip
async def test_a_function_may_take_an_agent_or_a_text(code: str, tmp_path: Path) -> None:
    found = (await outcomes([case()], agent_file(tmp_path, code)))["twice"]
    assert (found.said, found.error) == (["Hello."], None)


async def test_what_it_prints_is_kept_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os\nprint('loading')\ndef answer(text):\n    os.system('echo from a child')\n    return 'Hello.'\n"
    async with opened(Wanted(agent_file(tmp_path, code), "v2", 20.0), ()) as target:
        found = await results([case()], target)
        assert found["twice"].attempts[0].outcome.said == ["Hello."]
    assert isinstance(target, ModuleTarget)
    assert (target.printed.line, target.printed.size) == ("loading", 21)
    assert capfd.readouterr().out == ""


async def test_it_finds_no_way_to_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://operator:secret@127.0.0.1:4222")
    code = (
        "import os\ndef answer(text):\n    return str([n for n in os.environ if n[:8] in ('NATS_URL', 'MIDWATCH')])\n"
    )
    found = (await outcomes([case()], agent_file(tmp_path, code)))["twice"]
    assert found.said == ["[]"]


async def test_a_missing_answer_fails_its_case_alone(tmp_path: Path) -> None:
    words = "the recording holds no answer to lookup_order(order_id='A-1001')"
    cases = [case("holds it"), case("lacks it", recorded=()), case("is lenient", recorded=())]
    found = await outcomes(cases[:2], agent_file(tmp_path, GOOD), missing="fail")
    assert {name: one.error for name, one in found.items()} == {"holds it": None, "lacks it": words}
    lenient = (await outcomes(cases[2:], agent_file(tmp_path, GOOD)))["is lenient"]
    assert lenient.error == "the agent raised ToolFailed: no such answer in the recording (my_agent.py:6)"
    assert [call.answered for call in lenient.calls] == ["missing"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def anser(text): ...\n", "has no 'answer': did you mean 'anser'?"),
        ("import no_such_library\n", "failed: ModuleNotFoundError: No module named 'no_such_library' (my_agent.py:1)"),
        ("import os\nos._exit(5)\n", "loading it failed: the agent's process ended with exit code 5"),
    ],
)
async def test_a_target_that_cannot_be_loaded_is_one_line(code: str, said: str, tmp_path: Path) -> None:
    target = agent_file(tmp_path, code)
    with pytest.raises(BadTarget) as found:
        await outcomes([case()], target)
    assert str(found.value).startswith(f"--target {target}: ")
    assert said in str(found.value)


async def test_no_process_outlives_the_replay(tmp_path: Path) -> None:
    code = "import os, subprocess\ndef answer(text):\n    child = subprocess.Popen(['sleep', '600'])\n"
    code += "    return f'{os.getpid()} {child.pid}'\n"
    said = (await outcomes([case()], agent_file(tmp_path, code)))["twice"].said[0]
    for pid in map(int, said.split()):
        assert _is_gone(pid), f"process {pid} lives on"


async def test_nothing_reaches_a_bus_whatever_the_agent_connects_to(
    js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    code = f"""
import midwatch

async def answer(text):
    async with midwatch.connect("{nats_server.url}") as mw:
        desk = mw.agent("refund-desk", version="2")
        async with desk.run(input=text) as run:
            order = await run.tool("lookup_order", print, order_id="A-1001")
            await run.finish(f"You paid {{order['charges'][0]}}.")
"""
    found = (await outcomes([case()], agent_file(tmp_path, code)))["twice"]
    assert (found.said, found.error) == (["You paid 19.5."], None)
    for stream in (subjects.RUNS, subjects.GOVERNANCE, subjects.PRESENCE):
        assert (await js.stream_info(stream)).state.messages == 0
    assert not (tmp_path / "home").exists(), "no spool either"


async def test_a_blocked_agent_does_not_outlive_a_replay_that_was_killed(tmp_path: Path) -> None:
    code = "import os, pathlib, time\nasync def answer(text):\n"
    code += f"    pathlib.Path('{tmp_path}/pid').write_text(str(os.getpid()))\n    time.sleep(600)\n"
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from eval_replay_helpers import case, outcomes
asyncio.run(outcomes([case()], {agent_file(tmp_path, code)!r}, within=60.0))
"""
    replaying = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    pid = int(await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    replaying.kill()
    await replaying.wait()
    await eventually(lambda: _is_gone(pid))


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()

"""Agents that are asked over HTTP and over NATS in a replay, on real servers."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from eval_replay_helpers import case, outcomes
from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime.nats_server import NatsServer

Agent = Callable[[dict[str, Any]], Any]  # what is posted -> what is answered: JSON, or (status, body)


@contextmanager
def served(agent: Agent) -> Iterator[str]:
    """The address of a real HTTP server with this agent behind it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = agent(asked)
            status, body = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/turn"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def desk(asked: dict[str, Any]) -> dict[str, Any]:
    """Looks the order up, refunds what was charged twice, and says so."""
    last = asked["messages"][-1]
    cost = {"model": "gpt-4.1", "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
    if last["role"] == "customer":
        return {"calls": [{"tool": "lookup_order", "arguments": {"order_id": "A-1001"}, "id": "c1"}], **cost}
    if last["tool"] == "lookup_order":
        arguments = {"order_id": "A-1001", "amount": last["result"]["charges"][0]}
        return {"say": "One moment.", "calls": [{"tool": "issue_refund", "arguments": arguments}], **cost}
    return {"say": f"It is {last['result']}.", **cost}


async def test_a_conversation_over_http() -> None:
    heard = []

    def agent(asked: dict[str, Any]) -> dict[str, Any]:
        heard.append(asked)
        return desk(asked)

    with served(agent) as url:
        found = (await outcomes([case(turns=("I was charged twice.", "Thanks."))], url))["twice"]
    assert found.error is None
    assert found.said == ["One moment.", "It is refunded."] * 2
    assert [(call.tool, call.answered, call.kind) for call in found.calls] == [
        ("lookup_order", "recorded", "read"), ("issue_refund", "recorded", "write"),
    ] * 2  # fmt: skip
    assert (found.model_calls, found.cost_usd, found.cost_basis) == (6, "0.0168", "priced")
    assert [asked["turn"] for asked in heard] == [1, 1, 1, 2, 2, 2]
    assert {(asked["case"], asked["agent"], asked["version"]) for asked in heard} == {("twice", "refund-desk", "v2")}
    assert len({asked["run_id"] for asked in heard}) == 1
    assert heard[2]["messages"] == [
        {"role": "customer", "text": "I was charged twice."},
        {"role": "agent", "calls": [{"tool": "lookup_order", "arguments": {"order_id": "A-1001"}, "id": "c1"}]},
        {"role": "tool", "id": "c1", "tool": "lookup_order", "result": {"charges": [19.5, 19.5]}},
        {"role": "agent", "text": "One moment.", "calls": [
            {"tool": "issue_refund", "arguments": {"order_id": "A-1001", "amount": 19.5}, "id": "call-2"}]},
        {"role": "tool", "id": "call-2", "tool": "issue_refund", "result": "refunded"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "said", "handed_off"),
    [({"hand_off": {"reason": "a lawyer"}}, [], True), ({"say": "Bye.", "done": True}, ["Bye."], False)],
)
async def test_a_hand_off_and_done_end_the_conversation(answer: Any, said: list[str], handed_off: bool) -> None:
    with served(lambda _: answer) as url:
        found = (await outcomes([case(turns=("Hello", "Still there?"))], url))["twice"]
    assert (found.said, found.handed_off, found.error) == (said, handed_off, None)


def _wrong(asked: dict[str, Any]) -> Any:
    over = threading.Event()
    answers: dict[str, Callable[[], Any]] = {
        "status": lambda: (503, b"overloaded"),
        "no json": lambda: (200, b"<html>"),
        "other json": lambda: {"say": 7},
        "nothing": dict,
        "large": lambda: {"say": "x" * 1_100_000},
        "slow": lambda: over.wait(3) or {"say": "late"},
        "calls": lambda: {"calls": [{"tool": "lookup_order", "arguments": {"order_id": "A-1001"}}]},
        "redirects": lambda: (302, b""),
    }
    return answers.get(asked["case"], lambda: {"say": "fine"})()


async def test_each_way_to_give_no_answer_is_one_line_and_the_rest_still_run() -> None:
    names = ("status", "no json", "other json", "nothing", "large", "slow", "calls", "redirects", "fine", "fine too")
    with served(_wrong) as url:
        found = await outcomes([case(name) for name in names], url, within=1.5)
    assert {name: one.error for name, one in found.items()} == {
        "status": "the agent answered with status 503",
        "no json": "the agent's answer cannot be read: JSON is malformed: invalid character (byte 0)",
        "other json": "the agent's answer cannot be read: Expected `str | null`, got `int` - at `$.say`",
        "nothing": "the agent's answer holds nothing: give say, calls, hand_off or done",
        "large": "the agent's answer is larger than 1,048,576 bytes",
        "slow": "the agent gave no answer to turn 1 within 1.5 s",
        "calls": "the agent called tools 100 times in turn 1 and never answered",
        "redirects": "the agent answered with status 302",
        "fine": None,
        "fine too": None,
    }


async def test_an_agent_that_is_not_there_is_said_of_each_case(unused_tcp_port: int) -> None:
    found = await outcomes([case("a"), case("b")], f"http://127.0.0.1:{unused_tcp_port}/")
    assert {one.error for one in found.values()} == {"the agent cannot be asked: [Errno 111] Connection refused"}


async def test_a_missing_answer_ends_the_case() -> None:
    with served(desk) as url:
        found = await outcomes([case("lacks it", recorded=()), case("holds it")], url, missing="fail")
    assert found["lacks it"].error == "the recording holds no answer to lookup_order(order_id='A-1001')"
    assert [call.answered for call in found["lacks it"].calls] == ["missing"]
    assert found["holds it"].error is None


async def listens(nc: Client, agent: Agent) -> None:
    """An agent process that answers on its trial subject."""

    async def heard(msg: Msg) -> None:
        answer = agent(json.loads(msg.data))
        if answer is not None:
            await msg.respond(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    await nc.subscribe(subjects.trial("refund-desk"), queue="trial", cb=heard)
    await nc.flush()


async def test_a_conversation_over_nats(nc: Client, nats_server: NatsServer) -> None:
    await listens(nc, desk)
    found = (await outcomes([case()], "nats", nats_url=nats_server.url))["twice"]
    assert (found.said, found.error) == (["One moment.", "It is refunded."], None)
    assert [call.answered for call in found.calls] == ["recorded", "recorded"]


async def test_what_goes_wrong_over_nats_is_one_line_each(nc: Client, nats_server: NatsServer) -> None:
    def agent(asked: dict[str, Any]) -> Any:
        return {"silent": None, "no json": b"hello"}.get(asked["case"], {"say": "fine"})

    cases = [case("silent"), case("no json"), case("large", turns=("x" * nc.max_payload,)), case("fine")]
    cases.append(case("elsewhere", agent="other-desk"))
    await listens(nc, agent)
    found = await outcomes(cases, "nats", within=0.5, nats_url=nats_server.url)
    limit = f"the conversation is larger than the {nc.max_payload:,} bytes that NATS carries: replay it over http"
    nobody = "nobody answers on midwatch.trial.other-desk.turn: start the agent, or see that it may listen there"
    assert {name: one.error for name, one in found.items()} == {
        "silent": "the agent gave no answer to turn 1 within 0.5 s",
        "no json": "the agent's answer cannot be read: JSON is malformed: invalid character (byte 0)",
        "large": limit,
        "fine": None,
        "elsewhere": nobody,
    }


async def test_nothing_of_a_replay_is_kept_by_the_bus(js: Any, nc: Client, nats_server: NatsServer) -> None:
    await listens(nc, desk)
    await outcomes([case(f"c{number}") for number in range(5)], "nats", nats_url=nats_server.url)
    for stream in (subjects.RUNS, subjects.GOVERNANCE, subjects.PRESENCE):
        assert (await js.stream_info(stream)).state.messages == 0


async def test_without_a_server_the_target_is_one_line(unused_tcp_port: int) -> None:
    with pytest.raises(Temporary, match="no NATS server answers at"):
        async with asyncio.timeout(20):
            await outcomes([case()], "nats", nats_url=f"nats://127.0.0.1:{unused_tcp_port}")

"""Long fields and long events: cut, said so, never dropped."""

from typing import Any

import msgspec
import pytest

from midwatch import testing
from midwatch.contracts.codec import decode_run
from midwatch.contracts.envelope import Envelope, utc_now
from midwatch.contracts.runs import FIELD_LIMIT, Message, Said, Started, ToolCalled
from midwatch.fields import encode_event

COMMON: dict[str, Any] = {"run_id": "r1", "agent": "desk", "version": "1", "mode": "live", "seq": 0}


def sent(event: str, data: Any, limit: int = 1_000_000) -> tuple[Any, int]:
    """The data as a reader gets it, and the size of the message."""
    envelope = Envelope(id="e1", source="/agents/desk/i", type=f"midwatch.run.{event}.v1", time=utc_now(), data=data)
    body = encode_event(envelope, limit)
    return decode_run(f"midwatch.run.desk.{event}", body).data, len(body)


def test_a_field_at_the_limit_is_whole() -> None:
    data, _ = sent("said", Said(**COMMON, by="agent", text="x" * (FIELD_LIMIT - 2)))
    assert (len(data.text), data.truncated, data.full_lengths) == (FIELD_LIMIT - 2, False, {})


def test_a_field_over_the_limit_is_cut_and_its_full_length_kept() -> None:
    data, _ = sent("said", Said(**COMMON, by="agent", text="x" * 2_000_000))
    assert len(msgspec.json.encode(data.text)) <= FIELD_LIMIT
    assert data.text.startswith("xxx")
    assert (data.truncated, data.full_lengths) == (True, {"text": 2_000_002})


@pytest.mark.parametrize("character", ["\x00", "é", "漢", "🂡", '"'])
def test_the_limit_is_one_of_bytes_as_json(character: str) -> None:
    data, _ = sent("said", Said(**COMMON, by="agent", text=character * FIELD_LIMIT))
    size = len(msgspec.json.encode(data.text))
    assert FIELD_LIMIT * 0.98 < size <= FIELD_LIMIT
    assert set(data.text) == {character}


def test_a_structure_over_the_limit_becomes_the_beginning_of_its_json() -> None:
    rows = [{"n": n} for n in range(100_000)]
    data, _ = sent("tool_called", ToolCalled(**COMMON, tool="t", arguments={"a": 1}, result=rows))
    assert data.result.startswith('[{"n":0},{"n":1}')
    assert data.arguments == {"a": 1}
    assert data.full_lengths == {"result": len(msgspec.json.encode(rows))}


def test_long_messages_become_text_that_still_keeps_the_contract() -> None:
    data, _ = sent("started", Started(**COMMON, input=[Message(role="user", content="x" * 300_000)]))
    assert data.input.startswith('[{"role":"user","content":"xxx')


def test_labels_that_are_too_long_are_left_out() -> None:
    data, _ = sent("said", Said(**COMMON, by="agent", text="hi", labels={"a": "x" * 300_000}))
    assert (data.labels, data.text) == ({}, "hi")
    assert data.full_lengths == {"labels": 300_008}


def test_an_event_over_the_servers_limit_is_cut_further_not_dropped() -> None:
    big = "x" * 250_000
    data, size = sent("tool_called", ToolCalled(**COMMON, tool="t", arguments=big, result=big, error=big), 60_000)
    assert size <= 60_000
    assert data.full_lengths == {"arguments": 250_002, "result": 250_002, "error": 250_002}
    assert len(data.result) > 10_000


async def test_a_two_megabyte_result_reaches_the_log_through_a_run() -> None:
    async with testing.midwatch() as mw, mw.agent("desk", version="1").run(input="x" * 2_000_000) as run:
        await run.tool("t", lambda: {"rows": "y" * 2_000_000})
        run.finish()
    assert [event.data.truncated for event in mw.events] == [True, True, False]

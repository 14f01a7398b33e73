"""The same runs for everyone: real runs as our events, and each of them as the OTLP body of one trace."""

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from load import Message
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from midwatch.contracts import subjects
from midwatch.contracts.envelope import new_id

RUNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "agent-runs" / "runs.jsonl.gz"
_KINDS = {"model_called": "LLM", "tool_called": "TOOL"}  # everything else is a step of the chain


async def real_runs(client: Client, environment: dict[str, str]) -> list[list[Message]]:
    """The events of each published run, as `midwatch replay` publishes them."""
    command = [sys.executable, "-m", "midwatch_services.cli", "replay", str(RUNS), "--speed", "max", "--json"]
    await asyncio.to_thread(
        subprocess.run, command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL
    )
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
    reader = await client.jetstream().pull_subscribe("midwatch.run.>", stream=subjects.RUNS, config=config)
    total = (await reader.consumer_info()).num_pending or 0
    runs: dict[str, list[Message]] = defaultdict(list)
    found = 0
    while found < total:
        for message in await reader.fetch(500, timeout=10):
            found += 1
            runs[msgspec.json.decode(message.data)["subject"]].append(Message(message.subject, "", message.data))
    return list(runs.values())


def again(run: Sequence[Message]) -> list[Message]:
    """The run once more, under a run id and event ids of its own."""
    run_id, made = f"run-{new_id()}", []
    for message in run:
        event = msgspec.json.decode(message.body)
        event["id"] = new_id()
        event["subject"] = event["data"]["run_id"] = run_id
        made.append(Message(message.subject, event["id"], msgspec.json.encode(event)))
    return made


def body_of(run: Sequence[Message]) -> tuple[bytes, int]:
    """The run as one trace: a span for the run, and one below it for each event between its first and its last."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _set(resource.resource, {"service.name": run[0].subject.split(".")[2]})
    spans = resource.scope_spans.add().spans
    trace, root = os.urandom(16), os.urandom(8)
    events = [msgspec.json.decode(message.body) for message in run]
    times = [int(datetime.fromisoformat(event["time"]).timestamp() * 1e9) for event in events]
    first, last = events[0]["data"], events[-1]["data"]
    whole = spans.add(trace_id=trace, span_id=root, name="run", kind=Span.SPAN_KIND_SERVER)
    whole.start_time_unix_nano, whole.end_time_unix_nano = min(times), max(times) + 1
    _set(whole, {"openinference.span.kind": "AGENT", "session.id": first["run_id"], **_told(first)})
    _set(whole, {"output.value": str(last.get("output", "")), "midwatch.resolution": last.get("resolution", "")})
    for event, time in zip(events[1:-1], times[1:-1], strict=True):
        name, data = event["type"].split(".")[2], event["data"]
        span = spans.add(trace_id=trace, span_id=os.urandom(8), parent_span_id=root, name=data.get("tool", name))
        span.start_time_unix_nano = time - int(data.get("latency_ms", 0) * 1e6)
        span.end_time_unix_nano = time + 1
        _set(span, {"openinference.span.kind": _KINDS.get(name, "CHAIN"), **_told(data)})
    return request.SerializeToString(), len(spans)


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """What the event says, by the names that the peers look for, and the rest of it as it is."""
    usage = data.get("usage") or {}
    named = {
        "input.value": data.get("input", data.get("arguments", data.get("text"))),
        "output.value": data.get("output", data.get("result")),
        "llm.model_name": data.get("model"),
        "llm.provider": data.get("provider"),
        "llm.token_count.prompt": usage.get("input_tokens"),
        "llm.token_count.completion": usage.get("output_tokens"),
        "tool.name": data.get("tool"),
        "metadata": {"version": data.get("version"), "ticket": data.get("ticket"), "labels": data.get("labels")},
    }
    return {name: value for name, value in named.items() if value is not None}


def _set(holder: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        one = holder.attributes.add(key=name)
        if isinstance(value, int):
            one.value.int_value = value
        else:
            one.value.string_value = value if isinstance(value, str) else msgspec.json.encode(value).decode()

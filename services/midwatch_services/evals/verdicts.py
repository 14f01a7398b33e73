"""What the gate said of an agent's versions, on the bus. Whoever promotes a version asks here."""

import hashlib
from typing import NamedTuple

from nats.aio.client import Client

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import EvalCompleted
from midwatch.runtime.stream_read import read_range

from .gate import Gate
from .gate_files import digest
from .outcome import Results


class Said(NamedTuple):
    """A verdict of the gate, and when the server kept it (RFC 3339)."""

    id: str
    at: str
    data: EvalCompleted


def completed(gate: Gate, new: Results, baseline: Results | None, by: str) -> Envelope[EvalCompleted]:
    """The event of a gate. The same results judged the same way are the same event, whoever judges them again."""
    data = EvalCompleted(
        agent=gate.agent, version=gate.version, verdict=gate.verdict, why=gate.why, baseline=gate.baseline,
        eval_set=gate.eval_set, cases=gate.cases, gating=gate.gating, passed=gate.passed,
        baseline_passed=gate.baseline_passed,
        regressions=[one.case for one in gate.regressions], repaired=[one.case for one in gate.repaired],
        p_value=gate.p_value, cost_usd=gate.cost.usd, by=by,
    )  # fmt: skip
    parts = (gate.agent, gate.version, digest(new), digest(baseline), gate.verdict, f"{gate.policy.max_drop:g}")
    name = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
    return codec.envelope("eval", "completed", data, source="/people/command-line", id=f"eval-{name}")


async def history(nc: Client, agent: str) -> list[Said]:
    """All that the gate said of the agent, the oldest first. What was published again stands where it first stood.
    Raises Temporary where no server answers."""
    subject = subjects.evaluated(agent, "completed")
    found: dict[str, Said] = {}
    async for batch in read_range(nc, subjects.GOVERNANCE, subject, 1):
        for stored in batch:
            try:
                envelope = codec.decode(stored.subject, stored.body)
            except Refused:
                continue  # it is of no version
            if envelope.data.agent == agent:
                found.setdefault(envelope.id, Said(envelope.id, stored.stored_at, envelope.data))
    return list(found.values())


async def last_gate(nc: Client, agent: str, version: str) -> EvalCompleted | None:
    """What the gate said last of this very version, if it ever did. Raises Temporary where no server answers."""
    said = [one.data for one in await history(nc, agent) if one.data.version == version]
    return said[-1] if said else None


async def passed_gate(nc: Client, agent: str, version: str) -> EvalCompleted | None:
    """The gate that this very version passed, if the last that it went through is one."""
    last = await last_gate(nc, agent, version)
    return last if last is not None and last.verdict == "passed" else None

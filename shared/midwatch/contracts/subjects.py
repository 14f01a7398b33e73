"""Every name on the wire: subjects, streams, consumers, buckets, keys and headers.

Subjects are `midwatch.<noun>.<agent>.<event>`. Nothing else in the code spells one out.
"""

import hashlib
import re

AGENT_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
FLEET = "_fleet"  # stands for all agents where a subject needs a name
_AGENT = re.compile(AGENT_PATTERN)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")  # a run id that may stand in a key as it is

# Streams
RUNS = "MIDWATCH_RUNS"
GOVERNANCE = "MIDWATCH_GOVERNANCE"
PRESENCE = "MIDWATCH_PRESENCE"
DEAD = "MIDWATCH_DEAD"

# Buckets; the stream behind a bucket is `KV_<bucket>`, a key's subject `$KV.<bucket>.<key>`
SWITCH = "MIDWATCH_SWITCH"
AGENTS = "MIDWATCH_AGENTS"
ROUTES = "MIDWATCH_ROUTES"
CASES = "MIDWATCH_CASES"

# Core NATS: what the buckets republish to. A nudge, never to be trusted for its payload.
CONTROL = "midwatch.control"

# Deployed names of the services; each durable consumer carries the name of its service
LOGGER = "logger"
REVIEWER_SAMPLER = "reviewer-sampler"
COST_WATCHDOG = "cost-watchdog"
KILL_SWITCH = "kill-switch"
PAGER = "pager"  # its consumer is on MIDWATCH_GOVERNANCE: alerts, who has taken them on, and digests
DRIFT = "drift"  # reads no stream: it reads the run log, once a day
DIGEST = "digest"  # reads no stream: it looks into the log
CONSOLE = "console"  # reads no stream: it shows what others keep
REVIEWER_SAMPLER_GOVERNANCE = "reviewer-sampler-governance"  # on MIDWATCH_GOVERNANCE: what asks for a closer look
REVIEWER_SAMPLER_VERDICTS = "reviewer-sampler-verdicts"  # on MIDWATCH_GOVERNANCE: what reviewers say
LOGGER_GOVERNANCE = "logger-governance"  # the logger's second consumer, on MIDWATCH_GOVERNANCE
KILL_SWITCH_WRITES = "kill-switch-writes"  # on the stream behind the switch bucket
KILL_SWITCH_CASES = "kill-switch-cases"  # on the stream behind the cases bucket
KILL_SWITCH_GOVERNANCE = "kill-switch-governance"  # on MIDWATCH_GOVERNANCE: what people do with cases, alerts, drills

# Events of a run
RUN_EVENTS = (
    "started", "said", "model_called", "tool_called", "handed_off", "finished", "proposed", "human_acted",
)  # fmt: skip

CASE_LABEL = "midwatch.case"  # of a run in which a case that another agent left is handled

# Headers
MSG_ID = "Nats-Msg-Id"
CONTENT_TYPE = "Content-Type"
TRACEPARENT = "traceparent"
CLOUDEVENTS_JSON = "application/cloudevents+json"


def is_agent_name(name: str) -> bool:
    """Whether `name` may stand as an agent's token in a subject."""
    return _AGENT.fullmatch(name) is not None


def run(agent: str, event: str) -> str:
    """Subject of a run event, for instance `midwatch.run.refund-desk.started`."""
    return f"midwatch.run.{agent}.{event}"


def alert(agent: str, event: str) -> str:
    """Subject of an alert: `raised`, `acknowledged` or `resolved`."""
    return f"midwatch.alert.{agent}.{event}"


def switch(agent: str, event: str) -> str:
    """Subject of what kill-switch reports: `halted`, `resumed`, `contained`, `unconfirmed`, `revoked`, `drilled`."""
    return f"midwatch.switch.{agent}.{event}"


def review(agent: str, event: str) -> str:
    """Subject of a review event: `sampled`, `added`, `rated`, `judged`, `agreed`, `disputed`, `summed`, and
    `committed` / `revealed` of the day's key (on `_fleet`)."""
    return f"midwatch.review.{agent}.{event}"


def claim(agent: str, request: str) -> str:
    """Subject of a reviewer's request about the queue of an agent, or of all (on `_fleet`): `take`, `extend`,
    `release`. Nothing keeps it."""
    return f"midwatch.claim.{agent}.{request}"


def evaluated(agent: str, event: str) -> str:
    """Subject of what the eval gate says: `completed`."""
    return f"midwatch.eval.{agent}.{event}"


def trial(agent: str) -> str:
    """Subject on which an agent that is replayed over NATS is asked for its next answer. Nothing keeps it."""
    return f"midwatch.trial.{agent}.turn"


def case(agent: str, event: str) -> str:
    """Subject of a case: `opened`, `returned`, `closed` under the agent that left it; `offered` under the agent that is
    asked to take it; `accepted` under either."""
    return f"midwatch.case.{agent}.{event}"


def digest(agent: str, event: str) -> str:
    """Subject of a digest: `written`, of an agent's day or (on `_fleet`) of the shop's."""
    return f"midwatch.digest.{agent}.{event}"


def hold(event: str) -> str:
    """Subject of a legal hold, for all agents: `placed` or `lifted`."""
    return f"midwatch.hold.{FLEET}.{event}"


def erasure(event: str) -> str:
    """Subject of an erasure, which is nobody's in particular: `requested`, `resolved`, `erased`, `completed`."""
    return f"midwatch.erasure.{FLEET}.{event}"


def erasure_consumer(service: str) -> str:
    """Name of the consumer by which a service hears what it is to erase."""
    return f"{service}-erasure"


def evidence(event: str) -> str:
    """Subject of what the logger says of the proof of its log: `checkpointed`, on `_fleet`."""
    return f"midwatch.evidence.{FLEET}.{event}"


def audit(agent: str, event: str) -> str:
    """Subject of what a person did: `acted`, on an agent or (on `_fleet`) on none in particular."""
    return f"midwatch.audit.{agent}.{event}"


def presence(agent: str, instance: str) -> str:
    """Subject on which one running process of an agent reports itself."""
    return f"midwatch.presence.{agent}.{instance}"


def budget(agent: str, request: str) -> str:
    """Subject of a request about an agent's budgets: `reserve` or `commit`."""
    return f"midwatch.budget.{agent}.{request}"


def dead(service: str) -> str:
    """Subject of the dead letters of a service."""
    return f"midwatch.dead.{service}"


# Keys of the switch bucket
FLEET_KEY = "fleet"


def agent_key(agent: str) -> str:
    return f"agent.{agent}"


def tools_key(agent: str) -> str:
    return f"tools.{agent}"


def runs_key(agent: str) -> str:
    return f"runs.{agent}"


def switch_keys(agent: str) -> tuple[str, str, str, str]:
    """The four keys that an agent obeys."""
    return (FLEET_KEY, agent_key(agent), tools_key(agent), runs_key(agent))


# Keys of the cases bucket, one token after the agent that may create them
def case_key(agent: str, run_id: str) -> str:
    """Key that belongs to whoever created it first: the one who sees to the case of the run."""
    return f"{agent}.{run_id if _TOKEN.fullmatch(run_id) else '=' + _digest(run_id)}"


def offer_key(taker: str, agent: str, run_id: str) -> str:
    """Key by which the agent `taker` accepts the case of a run, and by which the router withdraws the offer: the first
    to create it wins."""
    return f"{taker}.offer={_digest(agent, run_id)}"


def case_id(agent: str, run_id: str) -> str:
    """Short name of the case of a run, for people to type."""
    return f"case-{_digest(agent, run_id)[:12]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def key_subject(bucket: str, key: str) -> str:
    """Subject of one key of a bucket: publish to it to write the key."""
    return f"$KV.{bucket}.{key}"


def key_stream(bucket: str) -> str:
    """Stream behind a bucket."""
    return f"KV_{bucket}"


def direct_get(bucket: str, key: str) -> str:
    """Request subject that answers the last value of a key without STREAM.INFO rights."""
    return f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}"


def control(key: str) -> str:
    """Where a write to a switch key is republished."""
    return f"{CONTROL}.{key}"


def control_card(agent: str) -> str:
    """Where a write of an agent's card is republished."""
    return f"{CONTROL}.card.{agent}"


def control_route(agent: str) -> str:
    """Where a write of an agent's route is republished."""
    return f"{CONTROL}.route.{agent}"

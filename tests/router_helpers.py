"""What the tests of the router share: runs that are stopped, claims, people, and the cases as they stand."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import Pod, publish, put, said
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, CaseClaim
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.runtime.database import Database
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.kill_switch.policy import Policy

# A router that did not look for `silent_after` has to hear everyone again: on a busy machine it needs some air.
HASTY = Policy(
    silent_after=timedelta(seconds=0.8), limit=timedelta(seconds=0.6), grace=timedelta(seconds=0.2),
    prune_after=timedelta(0), accept_within=timedelta(seconds=0.5), begin_within=timedelta(seconds=1),
    idle_after=timedelta(seconds=2),
)  # fmt: skip
KEY = "agent.desk"


async def begin(js: JetStreamContext, run_id: str = "r1", *, agent: str = "desk", **common: Any) -> None:
    """A run that was asked something and has looked something up."""
    await publish(js, "started", run_id, agent=agent, seq=0, input=f"Where is my refund, {run_id}?", **common)
    await publish(js, "tool_called", run_id, agent=agent, seq=1, **common)


async def stop(
    js: JetStreamContext, run_id: str = "r1", *, agent: str = "desk", to: str = "human", key: str | None = KEY,
    epoch: int | None = 7, own: bool = False, ended: str | None = "halted", seq: int = 2, **common: Any,
) -> None:  # fmt: skip
    """What the SDK records of a run that is stopped."""
    await publish(
        js, "handed_off", run_id, agent=agent, seq=seq, to=to, key=key, epoch=epoch, own=own, **common
    )  # fmt: skip
    if ended:
        await publish(js, "finished", run_id, agent=agent, seq=seq + 1, resolution=ended, epoch=epoch, **common)


async def create(js: JetStreamContext, key: str, *, by: str, to: str = "own", agent: str = "desk", run_id: str = "r1",
                 halted_by: str = KEY) -> None:  # fmt: skip
    """A key of the cases bucket, as the SDK or a router that died creates it."""
    claim = CaseClaim(agent=agent, run_id=run_id, by=by, to=to, at=datetime.now(UTC), key=halted_by, epoch=7)
    await js.publish(subjects.key_subject(subjects.CASES, key), control.encode(claim))


async def claim(js: JetStreamContext, run_id: str = "r1", *, by: str = "pod-1", to: str = "own", **more: Any) -> None:
    await create(js, subjects.case_key("desk", run_id), by=by, to=to, run_id=run_id, **more)


async def speak(js: JetStreamContext, data: Any, *, agent: str = "desk", id: str | None = None) -> None:
    """What people, a help desk or an agent say of a case."""
    event = {CaseAccepted: "accepted", CaseReturned: "returned", CaseClosed: "closed"}[type(data)]
    envelope = codec.envelope("case", event, data, source="/people/ann", id=id)
    await js.publish(subjects.case(agent, event), codec.encode(envelope))


async def give_card(js: JetStreamContext, **more: Any) -> None:
    """Applies a card of `desk`; to be done before the service starts."""
    card = Card(agent="desk", owner="o", purpose="p", can=["c"], **more)
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))


async def arm(js: JetStreamContext, agent: str, name: str = "helper-1", **more: Any) -> Pod:
    """An agent that is set running, with an instance that is armed."""
    revision = await put(js, subjects.agent_key(agent), b'{"state":"running"}')
    pod = Pod(js, name=name, agent=agent, lease=0.5)
    keys = dict.fromkeys(subjects.switch_keys(agent), 0) | {subjects.FLEET_KEY: 1, subjects.agent_key(agent): revision}
    await pod.say(keys, **more)
    return pod


@dataclass
class Cases:
    """The cases in kill-switch's database, and what was said of them."""

    js: JetStreamContext
    database: Database

    async def all(self) -> list[dict[str, Any]]:
        return await self.database.read(lambda conn: case_store.list_cases(conn, state="all", drill=True, limit=1000))

    async def one(self, agent: str = "desk", run_id: str = "r1") -> dict[str, Any]:
        case_id = subjects.case_id(agent, run_id)
        found = await self.database.read(lambda conn: case_store.read_case(conn, case_id))
        assert found is not None, f"no case of {run_id}"
        return found

    async def until(self, state: str, agent: str = "desk", run_id: str = "r1", within: float = 20.0) -> dict[str, Any]:
        """The case, once it is in that state."""

        async def look() -> dict[str, Any]:
            found = await self.one(agent, run_id)
            assert found["state"] == state, found["state"]
            return found

        found: dict[str, Any] = await eventually(look, within)
        if state in ("open", "offered"):  # what people say of it comes after it was said to be there, and so is read
            await eventually(lambda: self._is_said(subjects.case_id(agent, run_id)), within)
        return found

    async def _is_said(self, case_id: str) -> bool:
        spoken = await said(self.js, "case")
        return any(
            event in ("opened", "offered") and getattr(data, "case", data).case_id == case_id for event, data in spoken
        )

    async def history(self, agent: str = "desk", run_id: str = "r1") -> list[str]:
        case_id = subjects.case_id(agent, run_id)
        return [one["what"] for one in await self.database.read(lambda conn: case_store.history(conn, case_id))]

    async def said(self, *events: str) -> list[Any]:
        """Data of all that was said of cases, once it is exactly `events`, in order."""

        async def look() -> tuple[list[Any]]:
            spoken = await said(self.js, "case")
            assert [event for event, _ in spoken] == list(events)
            return ([data for _, data in spoken],)

        found: tuple[list[Any]] = await eventually(look)
        return found[0]

"""Several hands on one switch: two operators at once; a drill, an expiry and an operator in every order."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations, product

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from kill_switch_helpers import QUICK
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Scope, Switchboard, Written
from midwatch_services.kill_switch import history, store
from midwatch_services.kill_switch.handlers import KillSwitch

ROUNDS = 50
ORDERS = list(permutations(("drill", "expiry", "operator")))
HOUR = timedelta(hours=1)


class Clock:
    """kill-switch's clock, which the test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)


class Hands:
    """A drill, a halt with an expiry and an operator, each with its own reason to halt one agent."""

    def __init__(self, js: JetStreamContext, service: KillSwitch, clock: Clock, agent: str, drill_lasts: float) -> None:
        self._board, self._service, self._clock = Switchboard(js), service, clock
        self._scope, self._start = Scope(agent), clock.now
        self._until = {"drill": clock.now + drill_lasts * HOUR, "expiry": clock.now + HOUR}
        self.written: dict[str, Written] = {}

    async def write(self, who: str) -> None:
        until = self._until.get(who)
        self.written[who] = await self._board.halt(
            self._scope, reason=who, by=who, drill=who == "drill", expires_at=until
        )

    async def end(self, who: str) -> None:
        """The end that belongs to `who`: a drill restores, an expiry is executed, an operator resumes."""
        if who == "drill":
            await self._board.restore(self._scope, self.written[who], by="drill", reason="over")
        elif who == "operator":
            await self._board.resume(self._scope, reason="mended", by="operator")
        else:
            await self.pass_until(self._until[who])

    async def pass_until(self, time: datetime) -> None:
        await self._service.catch_up_writes()
        self._clock.now = max(self._clock.now, time + timedelta(seconds=1))
        await self._service.expire()

    async def pass_every_expiry(self) -> None:
        await self.pass_until(max(self._until.values()))

    async def halted(self) -> bool:
        record = (await self._board.read(self._scope.key)).record()
        assert record is not None
        return record.state == "halted"


@pytest.fixture
async def service(nc: Client, js: JetStreamContext, settings: Settings) -> AsyncIterator[tuple[KillSwitch, Clock]]:
    url = settings.database_for("kill-switch")
    migrate(url, "kill-switch")
    database, clock = Database(url), Clock()
    found = KillSwitch(nc, js, database, Outbox(database, store.PREFIX, js), lambda: clock.now, QUICK)
    await found.load()
    yield found, clock
    database.close()


@pytest.mark.parametrize("drill_lasts", [0.5, 2.0])  # in hours; the other expiry is one
async def test_in_every_order_nobody_lifts_what_is_not_theirs(js, service, drill_lasts: float) -> None:
    kill_switch, clock = service
    start = clock.now
    for number, (writes, ends) in enumerate(product(ORDERS, ORDERS)):
        clock.now = start
        agent = f"desk-{number}"
        await Switchboard(js).resume_agent(agent, reason="applied", by="test")
        hands = Hands(js, kill_switch, clock, agent, drill_lasts)
        for who in writes:
            await hands.write(who)
        # A drill that does not come first is refused, so that it has nothing to take back.
        assert hands.written["drill"].changed is (writes[0] == "drill"), (writes, ends)
        # The operator's halt has no end of its own: nothing but a resume lifts it, and that lifts everything.
        for place, who in enumerate(ends):
            await hands.end(who)
            resumed = "operator" in ends[: place + 1]
            assert await hands.halted() is not resumed, (writes, ends, who)


@pytest.mark.parametrize("drill_lasts", [0.5, 2.0])
@pytest.mark.parametrize("writes", [("drill", "expiry"), ("expiry", "drill")])
@pytest.mark.parametrize("ends", [("drill", "expiry"), ("expiry", "drill")])
async def test_without_an_operator_a_halt_stands_until_the_last_expiry_that_joined_it(
    js, service, drill_lasts: float, writes: tuple[str, ...], ends: tuple[str, ...]
) -> None:
    kill_switch, clock = service
    await Switchboard(js).resume_agent("desk", reason="applied", by="test")
    hands = Hands(js, kill_switch, clock, "desk", drill_lasts)
    for who in writes:
        await hands.write(who)
    joined = writes[0] == "drill" and drill_lasts == 2.0  # the longer drill was there first: the halt is of both
    for place, who in enumerate(ends):
        await hands.end(who)
        assert await hands.halted() is (joined or "expiry" not in ends[: place + 1])
    await hands.pass_every_expiry()
    assert not await hands.halted()


async def test_a_persons_halt_on_top_of_a_drill_survives_the_drill(js, service) -> None:
    kill_switch, clock = service
    await Switchboard(js).resume_agent("desk", reason="applied", by="test")
    hands = Hands(js, kill_switch, clock, "desk", 0.5)
    for who in ("drill", "operator"):
        await hands.write(who)
    await hands.end("drill")
    await hands.pass_every_expiry()
    assert await hands.halted()


async def test_two_operators_at_once_leave_one_line_of_history_and_both_are_told(js, service) -> None:
    kill_switch, _ = service
    board = {who: Switchboard(js) for who in ("ann", "bob")}
    told: list[tuple[str, str, Written]] = []

    async def act(who: str, verb: str) -> None:
        move = board[who].halt_agent if verb == "halted" else board[who].resume_agent
        told.append((who, verb, await move("desk", reason=f"{verb} by {who}", by=who)))

    for number in range(ROUNDS):
        verbs = (("halted", "running"), ("running", "halted"), ("halted", "halted"), ("running", "running"))[number % 4]
        await asyncio.gather(act("ann", verbs[0]), act("bob", verbs[1]))
        await kill_switch.catch_up_writes()

    wrote = {written.revision: (who, verb) for who, verb, written in told if written.changed}
    assert len(wrote) == sum(written.changed for _, _, written in told)  # no two hold the same revision for theirs
    for who, verb, written in told:
        # Whoever changed nothing is told whose word stands, and it is what they asked for.
        assert written.record.state == verb
        assert written.record.by == (who if written.changed else wrote[written.revision][0])
    line = [wrote[revision] for revision in sorted(wrote)]
    states = [verb for _, verb in line]
    assert all(before != after for before, after in pairwise(states))
    standing = (await board["ann"].read("agent.desk")).record()
    assert standing is not None
    assert (standing.by, standing.state) == line[-1]  # the last writer by revision

    past = list(reversed(await kill_switch._database.read(lambda conn: history.read(conn, agent="desk", fleet=False))))
    halts = [revision for revision in sorted(wrote) if wrote[revision][1] == "halted"]
    ends = [revision for revision in sorted(wrote) if wrote[revision][1] == "running" and revision > halts[0]]
    assert [one.halt.epoch for one in past] == halts
    assert [one.halt.record.by for one in past] == [wrote[revision][0] for revision in halts]
    assert [one.ended_epoch for one in past if one.closed_at] == ends
    assert len(halts) > ROUNDS // 4

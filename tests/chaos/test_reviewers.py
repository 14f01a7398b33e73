"""Reviewers in processes of their own who race for one queue, and one who is killed in the middle of a run."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.settings import Settings
from review_helpers import begin, judged, put_card
from stack import Stack

pytestmark = pytest.mark.chaos

PROGRAM = [sys.executable, str(Path(__file__).with_name("reviewer_program.py"))]
ITEMS = 500


async def reviewer(stack: Stack, name: str, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *PROGRAM, stack.nats.url, name, *more, env=stack.environment, stdout=asyncio.subprocess.PIPE
    )


async def lines(child: asyncio.subprocess.Process) -> list[str]:
    out, _ = await asyncio.wait_for(child.communicate(), 300)
    assert child.returncode == 0
    return out.decode().splitlines()


def rows(stack: Stack, query: str) -> list[tuple[object, ...]]:
    settings = Settings(home=stack.home, database_url=stack.environment.get("MIDWATCH_DATABASE_URL"))
    engine = sa.create_engine(settings.database_for(subjects.REVIEWER_SAMPLER))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


async def stands(stack: Stack) -> Counter[str]:
    """How often each run was said to be settled."""
    return Counter(data["run_id"] for data in await stack.spoken("agreed", "review"))


async def test_two_reviewers_and_two_samplers_judge_each_of_500_runs_once(
    stack: Stack, figure: Callable[..., None]
) -> None:
    js = stack.client.jetstream()
    await put_card(js)
    await stack.start("reviewer-sampler")
    await stack.start("reviewer-sampler")
    await begin(js, *(f"r-{n}" for n in range(ITEMS)))
    began = time.monotonic()
    ann, ben = await asyncio.gather(*[lines(await reviewer(stack, name)) for name in ("ann", "ben")])
    await judged(js)
    seconds = time.monotonic() - began
    both = Counter([*ann, *ben])
    assert len(both) == ITEMS
    assert set(both.values()) == {1}, "no run was given to two"
    assert min(len(ann), len(ben)) > ITEMS // 10, "both took part"
    assert rows(stack, "SELECT state, count(*) FROM reviewer_sampler_queue GROUP BY state") == [("settled", ITEMS)]
    assert rows(stack, "SELECT counts, count(*) FROM reviewer_sampler_judgements GROUP BY counts") == [(1, ITEMS)]
    assert await stands(stack) == Counter({f"r-{n}": 1 for n in range(ITEMS)})
    figure(f"two reviewers race for {ITEMS} runs", seconds, "s", 120)


async def test_a_run_that_is_drawn_for_two_is_judged_by_both_and_no_other_twice(stack: Stack) -> None:
    js = stack.client.jetstream()
    await put_card(js, second_review=0.3)
    await stack.start("reviewer-sampler")
    await begin(js, *(f"r-{n}" for n in range(100)))
    await asyncio.gather(*[lines(await reviewer(stack, name)) for name in ("ann", "ben", "cid")])
    await judged(js)
    query = (
        "SELECT second, count(*) FROM reviewer_sampler_queue NATURAL JOIN reviewer_sampler_judgements "
        "GROUP BY agent, run_id, second"
    )
    by_kind = {second: {count for kind, count in rows(stack, query) if kind == second} for second in (0, 1)}
    assert by_kind == {0: {1}, 1: {2}}
    assert sum(1 for _ in await stack.spoken("agreed", "review")) == 100


async def test_the_run_of_a_reviewer_who_is_killed_comes_back_and_is_judged_by_another(stack: Stack) -> None:
    js = stack.client.jetstream()
    await put_card(js, claim=1.0)
    await stack.start("reviewer-sampler")
    await begin(js, *(f"r-{n}" for n in range(5)))
    dying = await reviewer(stack, "ann", "3")
    assert dying.stdout is not None
    held = ""
    while not held:
        line = (await asyncio.wait_for(dying.stdout.readline(), 60)).decode().split()
        held = line[1] if line[0] == "holds" else ""
    dying.kill()
    await dying.wait()
    done: list[str] = []

    async def all_done() -> bool:
        done.extend(await lines(await reviewer(stack, "ben")))
        return f"judged {held}" in done

    await eventually(all_done, within=60)
    await judged(js)
    assert await stands(stack) == Counter({f"r-{n}": 1 for n in range(5)})
    judges = rows(stack, f"SELECT by FROM reviewer_sampler_judgements WHERE run_id = '{held}'")
    assert judges == [("ben",)]


POINTS = ("delivery.received", "reviewer_sampler.judged", "outbox.read", "outbox.published", "outbox.deleted",
          "delivery.drained", "delivery.acked", "reviewer_sampler.claimed")  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_sampler_that_dies_at_any_step_of_a_days_judging_loses_and_doubles_nothing(
    plain: Stack, point: str
) -> None:
    js = plain.client.jetstream()
    info = await js.consumer_info(subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS)
    await js.add_consumer(subjects.GOVERNANCE, info.config.evolve(ack_wait=1.0))
    await put_card(js, claim=1.0)
    drawing = await plain.start("reviewer-sampler")
    await begin(js, *(f"r-{n}" for n in range(30)))
    await drawing.kill()
    dying = await plain.start("reviewer-sampler", MIDWATCH_FAULT=f"{point}:7")
    judging = [await reviewer(plain, name) for name in ("ann", "ben")]
    assert await asyncio.wait_for(dying.child.wait(), 60) == 137
    await plain.start("reviewer-sampler")
    for child in judging:  # who got no answer while it was dead has gone home
        await asyncio.wait_for(child.communicate(), 60)

    async def all_settled() -> bool:
        await lines(await reviewer(plain, "cid"))
        await judged(js)
        return rows(plain, "SELECT state, count(*) FROM reviewer_sampler_queue GROUP BY state") == [("settled", 30)]

    await eventually(all_settled, within=60)
    assert await stands(plain) == Counter({f"r-{n}": 1 for n in range(30)})
    assert rows(plain, "SELECT count(*), min(counts) FROM reviewer_sampler_judgements") == [(30, 1)]

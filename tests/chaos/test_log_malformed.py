"""Ten thousand messages that break the contract among a hundred thousand: none costs a good one its place."""

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from midwatch.contracts import subjects
from midwatch.contracts.envelope import new_id
from midwatch.contracts.runs import EVENT_LIMIT
from run_log import Message, assert_as_undisturbed, dead, events, fill, lag
from stack import Stack

pytestmark = pytest.mark.chaos

GOOD, BAD = 90_000, 10_000
ALONE = 30_000  # good ones beside which the others are timed
SAID = "midwatch.run.desk.said"
Figure = Callable[[str, float, str, float], None]

KINDS = (
    ("malformed", SAID, lambda body: b"not json"),
    ("malformed", SAID, lambda body: body[:-40]),
    ("malformed", SAID, lambda body: b"\xff\xfe" + body),
    ("malformed", SAID, lambda body: b"[" * 20_000),
    ("malformed", SAID, lambda body: re.sub(rb'"seq":\d', b'"seq":"first"', body)),
    ("unknown_version", SAID, lambda body: body.replace(b"said.v1", b"said.v7")),
    ("wrong_agent", SAID, lambda body: body.replace(b'"agent":"desk"', b'"agent":"till"')),
    ("bad_subject", "midwatch.run.desk.exploded", lambda body: body),
)


def bad(count: int) -> Iterator[tuple[str, Message]]:
    """Messages of each kind in turn, a few of them larger than an event may be; each with the reason it must get."""
    bodies = (one.body for one in events() if one.subject == SAID)
    for number, body in zip(range(count), bodies, strict=False):
        if number % 1000 == 500:
            yield "oversized", Message(SAID, new_id(), b"x" * (EVENT_LIMIT + 1))
            continue
        reason, subject, broken = KINDS[number % len(KINDS)]
        yield reason, Message(subject, new_id(), broken(body))


def mixed(reasons: dict[str, str]) -> Iterator[Message]:
    """Nine good ones and a bad one, again and again."""
    good, wrong = events(), bad(BAD)
    for _ in range(BAD):
        yield from itertools.islice(good, GOOD // BAD)
        reason, message = next(wrong)
        reasons[message.id] = reason
        yield message


async def seconds_to_read(stack: Stack) -> float:
    """How long a logger takes from its first to its last acknowledgement."""
    waiting = await lag(stack)
    logger = await stack.start("logger")
    begin = time.monotonic()
    while (now := await lag(stack)) or not begin:
        if now == waiting:
            begin = time.monotonic()
        await asyncio.sleep(0.02)
    took = time.monotonic() - begin
    await logger.kill()
    return took


async def test_ten_thousand_malformed_among_a_hundred_thousand(
    plain: Stack, say: Callable[[str], None], figure: Figure
) -> None:
    await fill(plain.client, itertools.islice(events(), ALONE), size=500)
    rate = ALONE / await seconds_to_read(plain)
    reasons: dict[str, str] = {}
    await fill(plain.client, mixed(reasons), size=500)
    with_bad = GOOD / await seconds_to_read(plain)
    letters = [json.loads(body) for _, body in await plain.messages(subjects.DEAD)]
    assert {letter["service"] for letter in letters} == {"logger"}
    told = Counter((letter["headers"][subjects.MSG_ID], letter["reason"]) for letter in letters)
    assert told == Counter(reasons.items())
    assert await dead(plain) == BAD
    say(f"{BAD:,} malformed, each with its reason: {dict(Counter(reasons.values()))}")
    say(f"good events stored: {rate:,.0f}/s without malformed ones, {with_bad:,.0f}/s among them")
    figure(f"{GOOD:,} events and {BAD:,} malformed beside the {GOOD:,} alone", rate / with_bad, "times as long", 4)
    await assert_as_undisturbed(plain, ALONE + GOOD)

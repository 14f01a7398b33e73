"""The pager killed again and again in the middle of fifty alerts, before receivers that fail: every cause is told."""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from helpers import eventually
from midwatch.runtime.settings import Settings
from pager_helpers import SECRET, Call, Receiver, all_heard, listening, say
from stack import Stack

pytestmark = pytest.mark.chaos

CAUSES, KILLS = 50, 5
FILE = """\
channels:
  one: {webhook: "%(url)s/one", secret: "${PAGER_SECRET}"}
  two: {webhook: "%(url)s/two", secret: "${PAGER_SECRET}"}
contacts: {all: [one, two]}
routes: {on-call: {steps: [{tell: all, within: 1h}]}}
default: on-call
delivery: {within: 1s}
"""


async def test_a_pager_that_is_killed_in_the_middle_of_fifty_alerts_loses_none(
    stack: Stack, figure: Callable[..., None], record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(7)
    flaky = Receiver()

    taken: dict[str, set[str]] = {"/one": set(), "/two": set()}

    def reply(call: Call) -> int | None:
        fate = draw.random()
        if fate < 0.28:
            return 500 if fate < 0.25 else None
        taken[call.path].add(call.said["data"]["agent"])
        return 200

    flaky.reply = reply
    with listening(flaky):
        Settings(home=stack.home).pager_yaml.write_text(FILE % {"url": flaky.url})
        environment = {"PAGER_SECRET": SECRET}
        js = stack.client.jetstream()
        service = await stack.start("pager", **environment)
        began = time.monotonic()
        for number in range(CAUSES):
            await say(js, "raised", f"a-{number}", agent=f"desk-{number}")
            if number % (CAUSES // KILLS) == CAUSES // KILLS - 1:
                before = len(flaky.calls)
                await eventually(lambda before=before: len(flaky.calls) > before + 5, within=20)  # type: ignore[misc]
                await service.kill()
                service = await stack.start("pager", **environment)

        every = {f"desk-{number}" for number in range(CAUSES)}
        await eventually(lambda: taken["/one"] == taken["/two"] == every, within=180)
        seconds = time.monotonic() - began
        await eventually(lambda: all_heard(js))
        calls = Counter((call.path, call.id) for call in flaky.calls)
        causes = Counter((call.path, call.said["data"]["agent"]) for call in flaky.calls)
        by_id = {(call.path, call.said["data"]["agent"]): call.id for call in flaky.calls}
        assert len(calls) == len(by_id) == 2 * CAUSES, "each attempt of a message has the same id"
        assert all(call.what == "page" for call in flaky.calls)
        figure(
            f"pager killed {KILLS} times in {CAUSES} alerts: causes lost",
            len(every - (taken["/one"] & taken["/two"])),
            "causes",
            0,
        )
        figure("pager killed: the last cause is told after", seconds, "s", 180)
        record_property("figure", f"pager killed: {sum(causes.values())} attempts for {2 * CAUSES} messages")

"""Real runs replayed through NATS, the logger and cost-watchdog: what was said of them on the bus is what is told."""

import asyncio
import json
import re
from collections import defaultdict
from datetime import date
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry
from midwatch_services.digest.policy import Policy
from midwatch_services.digest.sources import Sources
from midwatch_services.replay.session import Wish, replay

pytestmark = pytest.mark.proof

AGENT, DAY = "airline-langchain_agent", date(2025, 11, 26)  # 42 runs, the wildest of the published ones
# What each rule of the watchdog is in words, of several runs.
SAID = {
    "loop_hand_offs": "one case was passed on again and again", "loop_text": "they said the same thing again and again",
    "loop_no_new_state": "they went in circles and learnt nothing new",
}  # fmt: skip


async def stopped(js: JetStreamContext) -> dict[str, set[str]]:
    """Of each rule the runs that it would have halted, from the messages themselves."""
    info = await js.stream_info(subjects.GOVERNANCE)
    found: dict[str, set[str]] = defaultdict(set)
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        data = json.loads(message.data or b"")["data"]
        if (message.subject or "").endswith(".raised") and data.get("action_taken") == "would_halt_run":
            found[data["rule"]].add(data["run_id"])
    return found


async def test_what_the_watchdog_said_of_real_runs_is_what_the_digest_says(
    js: JetStreamContext, settings: Settings, data_dir: Path
) -> None:
    names = (subjects.LOGGER, subjects.COST_WATCHDOG)
    started = asyncio.Event()
    services = [registry.load(name) for name in names]
    task = asyncio.create_task(run_services(services, settings, started=lambda _: started.set(), restart=False))
    try:
        await asyncio.wait_for(started.wait(), 20)
        await replay(Wish([data_dir / "agent-runs" / "runs.jsonl.gz"], agent=AGENT), settings, lambda *_: None)

        async def is_read() -> bool:
            read = [await all_read(js, subjects.RUNS, name) for name in names]
            return all(read) and await all_read(js, subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE)

        await eventually(is_read, within=30)
        said = await stopped(js)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with Sources(settings, Policy()) as sources:
        assert sources.agents(DAY, "replay") == [AGENT]
        assert sources.agents(DAY) == [], "replays are in no digest of what happened"
        digest = sources.digest(DAY, AGENT, utc_now(), mode="replay")
    assert digest.lead[0].text == "42 replayed runs began on this day: 18 settled, 18 handed over and 6 failed."
    told = {}
    for sentence in digest.sections[0].sentences:
        if found := re.fullmatch(
            r"(\d+) runs of airline-langchain-agent would have been stopped because (.+)\.", sentence.text
        ):
            assert sentence.total == int(found[1])
            told[found[2]] = (int(found[1]), {one.name for one in sentence.sources})
    assert {SAID[rule]: len(runs) for rule, runs in said.items()} == {text: count for text, (count, _) in told.items()}
    for rule, runs in said.items():
        assert told[SAID[rule]][1] <= runs, "it is linked to the runs themselves"
    assert len(said) == 3

"""A run with a call that has no price: every page and command counts what is known, and says that it is a part."""

import asyncio
import html
import json
import re
from datetime import timedelta

from nats.js import JetStreamContext
from typer.testing import CliRunner

from console_helpers import Person, console
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch.testing import card
from midwatch_services.cli import app
from midwatch_services.console.access.roles import Role
from reading_helpers import AGENT, Steps, arm, fill, refund, run

_DEAR = {"input_tokens": 150_000, "output_tokens": 75_000}
PRICEY: Steps = [
    ("started", {"input": "Read all of it."}),
    ("model_called", {"provider": "openai", "model": "gpt-4.1", "usage": _DEAR}),
    ("model_called", {"provider": "nobody", "model": "no-such-model-9", "usage": _DEAR}),
    ("finished", {"resolution": "resolved"}),
]


async def words(ann: Person, path: str) -> str:
    """What a page says, without its tags."""
    page = await ann.get(path)
    assert page.status_code == 200, page.text
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.text)))


async def told(*arguments: str) -> str:
    found = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert found.exit_code == 0, found.output
    return found.output.replace("\u00a0", " ")


async def test_what_is_known_of_a_run_is_counted_alike_wherever_its_cost_stands(
    js: JetStreamContext, settings: Settings
) -> None:
    begin = utc_now() - timedelta(seconds=1)
    await fill(settings, iter([*run("r-1", begin, PRICEY), *run("r-2", begin, refund("A-2"))]))
    await arm(js, card(AGENT, budget=BudgetRule(day="1")))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        today = await words(ann, "/")
        assert "at least $0.90 today so far, in 2 runs" in today
        assert "At least 91 % of the $1.00 that today may cost." in today
        assert "At least 91 % of its budget for today is gone:" in today
        assert "Of what one of today's runs cost, a part is not known." in today
        for path in ("/agents", f"/agents/{AGENT}"):
            page = await words(ann, path)
            assert "at least $0.90" in page
            assert "at least 91 % of the budget" in page
        # Of the two, r-2 alone can say what a run costs.
        assert "$0.0093 of the one run whose cost is known" in page
        assert "at least $0.90" in await words(ann, "/runs")
    assert "The day cost at least $0.90." in await told("digest", "--date", begin.date().isoformat())
    kept = [json.loads(line) for line in (await told("runs", "--json")).splitlines()]
    costs = {one["run_id"]: (one["cost_usd"], one["cost_basis"]) for one in kept}
    assert costs == {"r-1": ("0.9", "unpriced"), "r-2": ("0.00932", "priced")}

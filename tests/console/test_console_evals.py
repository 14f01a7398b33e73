"""Eval sets on the console: cases, what the gate said, and agreeing without seeing who did before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs
from nats.js import JetStreamContext

from console_helpers import Running, console
from eval_helpers import SMALLEST, put
from gate_helpers import pair
from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.erasure import ErasedRun
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.evals import load
from midwatch_services.evals.gate import compare
from midwatch_services.evals.verdicts import completed
from midwatch_services.logger.erasure import store as erasures
from review_helpers import put_card

ASKS = SMALLEST + "expect: {says: refund}\n"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"evals": tmp_path / "evals"})


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    put(settings.evals.parent, "one.yaml", ASKS)
    put(settings.evals.parent, "two.yaml", SMALLEST.replace("duplicate-charge", "asks-nothing"))
    put(settings.evals.parent, "bad.yaml", "case: [")
    async with console(settings) as one:
        yield one


async def test_two_people_agree_and_neither_sees_the_other(running: Running, settings: Settings) -> None:
    here = "/evals/desk/duplicate-charge"
    criteria = load.load("desk", settings.evals)[0][0].expect.hash
    async with running.person(Role.REVIEWER, by="zacharias") as one, running.person(Role.REVIEWER, by="ben") as two:
        page = (await one.get(here)).text
        assert "say “refund”" in page
        assert "two people have to agree" in page
        assert (await one.act(f"{here}/agree", criteria=criteria)).headers["location"] == here
        assert "One more person has to agree before it gates." in (await one.get(here)).text
        await one.act(f"{here}/agree", criteria=criteria)
        assert "it takes another person" in (await one.get(here)).text
        for path in ("/evals", "/evals/desk", here):
            assert "zacharias" not in (await two.get(path)).text
        assert "I agree with these criteria" in (await two.get(here)).text
        await two.act(f"{here}/agree", criteria=criteria)
        assert "The case gates now." in (await two.get(here)).text
        await two.act("/evals/desk/asks-nothing/agree", criteria="x")
        assert "The case has changed since you opened it" in (await two.get("/evals/desk/asks-nothing")).text
    assert [one.by for one in load.load("desk", settings.evals)[0][0].agreed] == ["zacharias", "ben"]
    actions = [(one["by"], one["action"], one["target"]) for one in await running.recorded()]
    assert actions == [
        ("zacharias", "eval.agreed", "duplicate-charge"), ("zacharias", "eval.not_agreed", "duplicate-charge"),
        ("ben", "eval.agreed", "duplicate-charge"), ("ben", "eval.not_agreed", "asks-nothing"),
    ]  # fmt: skip


async def test_an_agents_page_tells_cases_files_that_are_wrong_and_why_none_gates(running: Running) -> None:
    async with running.person(Role.VIEWER) as vera:
        assert "one file is left out" in (await vera.get("/evals")).text
        page = (await vera.get("/evals/desk")).text
        assert "2 cases, 0 that gate." in page
        assert "it asks nothing yet." in page
        assert "bad.yaml:1" in page
        assert "It was not replayed yet." in page
        assert "I agree" not in (await vera.get("/evals/desk/duplicate-charge")).text
        assert (await vera.act("/evals/desk/duplicate-charge/agree", criteria="x")).status_code == 403
        wrong = ("/evals/desk/none", "/evals/desk/..%2Fx", "/evals/nobody", "/evals/desk?page=0")
        assert [(await vera.get(path)).status_code for path in wrong] == [404] * 4


async def test_a_case_of_an_erased_run_is_left_out_and_its_page_says_why(running: Running, settings: Settings) -> None:
    put(settings.evals.parent, "gone.yaml", SMALLEST.replace("duplicate-charge", "gone") + "from: {run: r-1}\n")
    here = "/evals/desk/gone"
    async with running.person(Role.VIEWER) as vera:
        assert "order A-1001" in (await vera.get(here)).text
        url = settings.database_for(subjects.LOGGER)
        await asyncio.to_thread(migrate, url, subjects.LOGGER)
        with closing(Database(url)) as log:
            run = ErasedRun(agent="desk", run_id="r-1")
            await log.write(lambda conn: erasures.remember(conn, "er-1", [run]))
        page = await vera.get(here)
        assert (page.status_code, "order A-1001" in page.text) == (404, False)
        assert "was erased on request: `midwatch erase cases` removes it" in page.text
        listed = (await vera.get("/evals/desk")).text
        assert "Left out:" in listed
        assert "2 cases, 0 that gate." in listed


async def test_what_the_gate_said_is_told_regressions_first_without_any_folder(
    js: JetStreamContext, settings: Settings
) -> None:
    new, old = pair(regressions=9, repairs=0, kept=30)
    await put_card(js, "refund-desk")
    envelope = completed(compare(new, old), new, old, "ana")
    await js.publish(subjects.evaluated("refund-desk", "completed"), codec.encode(envelope))
    async with console(settings) as running, running.person(Role.VIEWER) as vera:
        page = (await vera.get("/evals")).text
        assert "refund-desk" in page
        assert "Failed" in page
        page = (await vera.get("/evals/refund-desk")).text
        assert "Got worse:" in page
        assert "c0, c1, c2" in page.replace("<bdi>", "").replace("</bdi>", "")
        assert "The console sees no cases of this agent" in page
        assert str(settings.evals) in page


async def test_how_many_of_the_cases_the_gate_compared_is_told(js: JetStreamContext, settings: Settings) -> None:
    new, old = pair(regressions=0, repairs=0, kept=30)
    await put_card(js, "refund-desk")
    for version, gating, verdict, shown in (
        ("part", 42, "Cannot be told", "Only 30 of 42 cases that gate were compared"),
        ("grown", 33, "Passed", "30 of 33 cases that gate were compared."),
        ("older", None, "Passed", "Whether these were all cases"),
    ):
        of = structs.replace(new, version=version, gating=gating)
        envelope = completed(compare(of, old), of, old, "ana")
        await js.publish(subjects.evaluated("refund-desk", "completed"), codec.encode(envelope))
        async with console(settings) as running, running.person(Role.VIEWER) as vera:
            newest = (await vera.get("/evals/refund-desk")).text.split("</section>")[0]
        assert shown in newest
        assert verdict in newest


async def test_the_list_says_that_the_gate_cannot_be_read_and_never_that_it_was_not_asked(
    running: Running, nats_server: NatsServer
) -> None:
    async with running.person(Role.VIEWER) as vera:
        assert "never asked" in (await vera.get("/evals")).text
        await nats_server.stop()

        async def silent() -> bool:
            page = (await vera.get("/evals")).text
            assert "never asked" not in page
            assert "cannot be read" in page
            return "start NATS, and open this page again" in page

        await eventually(silent, 15)


async def test_with_no_eval_set_at_all_the_page_says_how_to_begin(js: JetStreamContext, settings: Settings) -> None:
    async with console(settings) as running, running.person(Role.VIEWER) as vera:
        page = (await vera.get("/evals")).text
        assert "No eval set yet" in page
        assert "MIDWATCH_EVALS" in page

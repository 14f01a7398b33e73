"""`midwatch erase` as it is typed, beside services that run, or do not."""

import asyncio
import gzip
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

import shipped_server
from erasure_helpers import CUSTOMER, PLANTED, Services, caught_up, in_files, in_streams, plant, plant_all
from eval_helpers import put
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch.runtime.topology import ERASERS
from midwatch_services.cli import app
from midwatch_services.logger.erasure import store
from shipped_server import Connect
from stack import Stack, running

server, connect = shipped_server.server, shipped_server.connect
ALL = (subjects.LOGGER, *ERASERS)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running(tmp_path) as whole:
        yield whole


@pytest.fixture
async def services(stack: Stack) -> AsyncIterator[Services]:
    some = Services(Settings(home=stack.home, nats_url=stack.nats.url, http_port=0))
    await some.start(*ALL)
    yield some
    await some.stop()


async def test_it_says_what_it_would_reach_and_then_proves_what_it_has_done(stack: Stack, services: Services) -> None:
    await plant_all(stack.client.jetstream())
    put(stack.home, "made.yaml", "case: r-1\nfrom: {run: r-1}\nconversation: [plantinput]\n")
    [dry] = await stack.run("erase", "--customer", CUSTOMER, "--reason", "letter", "--dry-run", "--json")
    assert dry["runs"] == [["desk", "r-1"], ["desk", "r-shadow"]]
    assert (dry["events"], dry["alerts"], dry["cases"], dry["run_messages"]) == (12, 2, 1, 13)
    assert dry["dead_letters"] == 6  # two buried by the test, and what four services could not read
    assert await in_streams(stack.client.jetstream())

    asked = ("erase", "--customer", CUSTOMER, "--reason", "letter", "--by", "dpo", "--yes", "--json")
    code, [row], errors = await stack.attempt(*asked)
    assert code == 4
    assert "evals/desk/made.yaml holds what an erased run said: remove it with `midwatch erase cases`" in errors
    assert [one["path"] for one in dry["eval_cases"]] == [one["path"] for one in row.pop("eval_cases")]
    assert (row["state"], row["by"], row["reason"]) == ("done", "dpo", "letter")
    assert set(row["confirmed"]) == set(ERASERS)
    assert len(row["proof"]["events"]) == 12
    assert await in_streams(stack.client.jetstream()) == []
    assert in_files(stack.home / "data") == []
    [listed] = await stack.run("erase", "list", "--json")
    [shown] = await stack.run("erase", "show", row["erasure"][:7], "--json")
    assert listed == shown == row
    [again] = await stack.run("erase", "--customer", CUSTOMER, "--reason", "letter", "--dry-run", "--json")
    assert (again["runs"], again["events"], again["run_messages"], again["dead_letters"]) == ([], 0, 0, 0)
    [told] = await stack.run("show", "r-1", "--agent", "desk", "--json")
    assert {event["erased"] for event in told["event_list"]} == {row["erasure"]}


@pytest.mark.proof
async def test_log_and_exports_can_be_verified_after_an_erasure(
    stack: Stack, services: Services, tmp_path: Path
) -> None:
    js = stack.client.jetstream()
    await plant_all(js)
    here, elsewhere = tmp_path / "export", tmp_path / "elsewhere"

    log = Database(f"sqlite:///{stack.home}/data/logger.db")
    place = "SELECT place FROM logger_cursors WHERE name = 'sequencer'"
    last = f"SELECT ({place}) >= (SELECT max(place) FROM logger_events)"
    await eventually(lambda: log.read_now(lambda conn: conn.exec_driver_sql(last).scalar()), within=30)
    log.close()
    await stack.run("export", "--out", str(here))
    shutil.copytree(here, elsewhere)
    for folder in (here, elsewhere):
        assert words_in(folder)
    [row] = await stack.run("erase", "--customer", CUSTOMER, "--reason", "letter", "--yes", "--json")

    assert words_in(here) == set()
    assert words_in(elsewhere)
    await stack.run("erase", "export", str(elsewhere), "--id", row["erasure"])
    assert words_in(elsewhere) == set()
    for words in (("--export", str(here)), ("--export", str(elsewhere)), ()):
        await eventually(lambda words=words: verified(stack, *words), within=30)
    with gzip.open(here / "erasures.jsonl.gz", "wb") as out:
        out.write(b"")
    code, _, _ = await stack.attempt("verify", "--export", str(here))
    assert code == 1


async def verified(stack: Stack, *words: str) -> bool:
    code, lines, errors = await stack.attempt("verify", *words)
    assert code == 0, (words, lines, errors)
    return True


def words_in(folder: Path) -> set[str]:
    """Planted words in the unpacked files of an export."""
    texts = [
        (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).lower()
        for path in folder.iterdir()
    ]
    return {word for word in PLANTED if any(word.encode() in text for text in texts)}


async def test_an_eval_folder_that_cannot_be_looked_at_keeps_nothing_from_being_erased(
    stack: Stack, services: Services
) -> None:
    await plant(stack.client.jetstream())
    await caught_up(stack.client.jetstream())
    beyond = "x" * 300  # longer than a name may be: whoever runs this may read what there is
    asked = ("erase", "--run", "r-1", "--agent", "desk", "--reason", "letter", "--yes", "--json", "--evals", beyond)
    code, [row], errors = await stack.attempt(*asked)
    assert (code, row["state"]) == (4, "done")
    assert f"{beyond} may hold what an erased run said: it cannot be looked at (file name too long)" in errors


async def test_it_ends_with_3_and_names_who_has_not_confirmed_it(stack: Stack, services: Services) -> None:
    await plant(stack.client.jetstream())
    await caught_up(stack.client.jetstream())
    await services.stop(subjects.KILL_SWITCH)
    asked = ("erase", "--run", "r-1", "--agent", "desk", "--reason", "letter", "--yes", "--within", "4")
    code, _, errors = await stack.attempt(*asked)
    assert code == 3
    assert "is NOT complete: kill-switch has not confirmed it. It goes on by itself" in errors
    assert "no eval case was looked for, since there is no evals" in errors
    await services.start(subjects.KILL_SWITCH)

    async def done() -> bool:
        [row] = await stack.run("erase", "list", "--json")
        return bool(row["state"] == "done")

    await eventually(done, within=30)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "say what to erase"),
        (("--run", "r-1"), "a run is named by --run and --agent"),
        (("--customer", "c-1"), "say why with --reason"),
        (("--customer", "c-1", "--reason", "wish of c-1"), "leave the customer and the ticket out of them"),
    ],
)
def test_a_request_that_says_too_little_or_too_much_is_refused(words: tuple[str, ...], why: str) -> None:
    done = CliRunner().invoke(app, ["erase", *(words or ("--reason", "x"))], terminal_width=200)
    assert (done.exit_code, why in done.stderr) == (2, True), done.stderr


async def test_with_the_shipped_roles_the_admin_asks_and_the_services_erase(
    connect: Connect, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect("admin") as admin:
        js = admin.nc.jetstream()
        await topology.apply(js, Settings())
        settings = Settings(home=tmp_path / "home", nats_url=f"nats://services:pw-services@{server}", http_port=0)
        services = Services(settings)
        await services.start(*ALL)
        try:
            await plant_all(js)
            asked = {"erasure_id": "er-000000000001", "by": "dpo", "reason": "letter", "customer": CUSTOMER}
            body = {
                "specversion": "1.0", "id": "x", "source": "/people/x", "type": "midwatch.erasure.requested.v1",
                "time": "2026-11-26T12:00:00Z", "data": asked,
            }  # fmt: skip
            async with connect("operator") as operator:
                assert not await operator.may_publish(subjects.erasure("requested"))
            await js.publish(subjects.erasure("requested"), msgspec.json.encode(body))
            database = Database(settings.database_for(subjects.LOGGER))

            async def done() -> bool:
                found = await database.read(lambda conn: store.read(conn, "er-000000000001"))
                return bool(found) and found[0].phase == "done"

            await eventually(done, within=40)
            await asyncio.to_thread(database.close)
            assert await in_streams(js) == []
        finally:
            await services.stop()
    assert "violation" not in caplog.text.lower()

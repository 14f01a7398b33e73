"""What every request passes on its way to a page of the console: limits of one's own, sites, sizes, and the key."""

import re
from collections.abc import AsyncIterator

import pytest
from nats.js import JetStreamContext
from structlog.testing import capture_logs
from typer.testing import CliRunner

from console_helpers import Running, console, keep_digests
from helpers import eventually
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services import cli
from midwatch_services.console.access import key
from midwatch_services.console.access.roles import Role

FORM = {"content-type": "application/x-www-form-urlencoded"}


async def test_whoever_hurries_is_told_to_wait_and_signing_in_sooner(js: JetStreamContext, settings: Settings) -> None:
    async with console(settings.model_copy(update={"console_requests": 1.0})) as running:
        async with running.person() as guesser:
            codes = [(await guesser.get(f"/enter?token=guess-{place}")).status_code for place in range(7)]
            assert codes == [403] * 5 + [429] * 2  # half a request a second, ten seconds' worth at once
        async with running.person(Role.VIEWER) as ann, running.person(Role.VIEWER, by="ben") as ben:
            answers = [await ann.get("/about") for _ in range(15)]
            assert [one.status_code for one in answers[:10]] == [200] * 10
            late = next(one for one in answers if one.status_code == 429)
            assert late.headers["retry-after"] in ("1", "2")
            assert "Wait a few seconds" in late.text
            assert (await ben.get("/about")).status_code == 200
            assert (await ann.get("/static/midwatch.css")).status_code == 200


async def test_strangers_lock_out_nobody_who_is_signed_in_or_has_a_link(
    js: JetStreamContext, settings: Settings
) -> None:
    slow = settings.model_copy(update={"console_requests": 0.2})
    async with (
        console(slow) as running, running.person() as flood, running.person(Role.VIEWER) as ann,
        running.person() as ben,
    ):  # fmt: skip
        assert 429 in [(await flood.get("/enter?token=guess")).status_code for _ in range(8)]
        assert 429 in [(await flood.get("/sign-in")).status_code for _ in range(20)]
        assert (await ann.get("/about")).status_code == 200
        assert (await ben.get(running.link(by="ben"))).status_code == 303
        assert (await ben.get("/about")).status_code == 200


async def test_whoever_hurries_can_still_press_stop(js: JetStreamContext, settings: Settings) -> None:
    slow = settings.model_copy(update={"console_requests": 1.0})
    async with console(slow) as running, running.person(Role.OPERATOR) as olga:
        token = await olga.token()
        assert 429 in [(await olga.get("/about")).status_code for _ in range(15)]
        assert (await olga.act("/stop/halt", token, what="fleet", reason="it loops")).status_code == 303


async def test_what_another_site_loads_is_refused_and_costs_the_person_nothing(
    js: JetStreamContext, settings: Settings
) -> None:
    slow = settings.model_copy(update={"console_requests": 1.0})
    image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    frame, beside = {**link, "sec-fetch-dest": "iframe"}, {**image, "sec-fetch-site": "same-site"}
    async with console(slow) as running, running.person(Role.VIEWER) as ann:
        assert {(await ann.get("/about", headers=image)).status_code for _ in range(15)} == {403}
        assert [(await ann.get("/about", headers=one)).status_code for one in (link, frame, beside)] == [200, 403, 403]


async def test_a_link_on_another_site_saves_no_file_in_ones_name(running: Running) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with running.person(Role.ADMIN) as ann:
        for path in ("/runs.csv", "/audit.csv"):
            answer = await ann.get(path, headers=link)
            assert (answer.status_code, "That did not come from this page" in answer.text) == (403, True)
        assert await running.recorded() == []
        assert (await ann.get("/audit.csv", headers={"sec-fetch-site": "same-origin"})).status_code == 200


async def test_an_origin_that_is_no_address_is_refused(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann:
        token = await ann.token()
        answer = await ann.client.post("/today/read", data={"csrf": token}, headers={"origin": "http://["})
        assert answer.status_code == 403


async def test_a_form_holds_forty_thousand_letters_of_any_language(running: Running) -> None:
    keep_digests(running.settings)
    async with running.person(Role.VIEWER) as ann:
        assert (await ann.act("/today/read", text="\u8ad6" * 40_000)).status_code == 303


async def test_a_form_that_does_not_say_its_size_is_measured(running: Running) -> None:
    keep_digests(running.settings)

    async def pieces(count: int) -> AsyncIterator[bytes]:
        yield f"csrf={token}&text=".encode()
        for _ in range(count):
            yield b"x" * 65_536

    async with running.person(Role.VIEWER) as ann:
        token = await ann.token()
        fits = await ann.client.post("/today/read", content=pieces(7), headers=FORM)
        large = await ann.client.post("/today/read", content=pieces(9), headers=FORM)
    assert (fits.status_code, large.status_code) == (303, 413)
    assert "larger than 512 KB" in large.text


async def test_the_address_is_known_in_capitals_and_with_its_usual_port(
    js: JetStreamContext, settings: Settings
) -> None:
    given = settings.model_copy(update={"console_url": "https://Midwatch.Shop.example:443"})
    with capture_logs() as said:
        async with console(given) as running, running.person() as ann:
            assert (await ann.get("/sign-in", headers={"host": "midwatch.shop.example"})).status_code == 200
            assert (await ann.get("/sign-in", headers={"host": "midwatch.shop.example:444"})).status_code == 421
    assert "console_proxies_not_named" in [one["event"] for one in said]


async def test_everybody_is_signed_out_of_a_console_that_runs_and_new_links_open_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIDWATCH_HOME", str(running.settings.home))
    async with running.person(Role.ADMIN) as ann, running.person() as ben:
        old = running.link(by="ben")
        assert (await ann.get("/about")).status_code == 200
        done = CliRunner().invoke(cli.app, ["console", "sign-everybody-out", "--json"])
        assert done.stdout == f'{{"signed_out":true,"key":"{running.settings.home}/console.key"}}\n'
        assert (await ann.get("/about")).status_code == 303
        assert (await ben.get(old)).status_code == 403
        assert (await ben.get(running.link(by="ben"))).status_code == 303
        assert (await ben.get("/about")).status_code == 200
        (running.settings.home / "console.key").unlink()
        assert (await ben.get("/about")).status_code == 303
        assert len(key.load(running.settings)) == 64


def test_a_key_of_the_settings_is_replaced_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_CONSOLE_KEY", "k" * 32)
    done = CliRunner().invoke(cli.app, ["console", "sign-everybody-out"])
    assert (done.exit_code, done.stderr) == (
        1, "midwatch: MIDWATCH_CONSOLE_KEY signs the sessions: set another there and start the console anew.\n"
    )  # fmt: skip


async def test_without_the_bus_a_link_signs_in_and_says_that_nobody_recorded_it(
    running: Running, nats_server: NatsServer
) -> None:
    async with running.person() as ann:
        nats_server.kill()
        with capture_logs() as said:
            assert (await ann.get(running.link())).status_code == 303
        assert "You are signed in. The bus did not record it" in (await ann.get("/about")).text
    assert ("deed_not_recorded", "ann") in [(one["event"], one.get("by")) for one in said]


async def test_without_the_bus_one_is_signed_out_all_the_same(running: Running, nats_server: NatsServer) -> None:
    async with running.person(Role.VIEWER) as ann, running.person() as copy:
        copy.client.cookies.set(*next((c.name, c.value) for c in ann.client.cookies.jar))
        token = await ann.token()
        nats_server.kill()
        out = await ann.act("/sign-out", token)
        assert out.headers["location"] == "/sign-in"
        assert re.search(r"midwatch-session-\d+=\"\"; .*Max-Age=0", out.headers["set-cookie"])
        assert "You are signed out. The bus did not record it" in (await ann.get("/sign-in")).text
        assert (await copy.get("/about")).status_code == 303


async def test_what_was_not_done_without_the_bus_is_not_told_of_later(
    running: Running, nats_server: NatsServer
) -> None:
    keep_digests(running.settings, "2026-11-20", "2026-11-21")
    nc = running.context.nc
    async with running.person(Role.VIEWER) as ann:
        token = await ann.token()
        nats_server.kill()
        await eventually(lambda: not nc.is_connected)
        assert (await ann.act("/today/read", token, day="2026-11-20")).status_code == 503
        await nats_server.restart()
        await eventually(lambda: nc.is_connected)
        assert (await ann.act("/today/read", token, day="2026-11-21")).status_code == 303
    assert [one["target"] for one in await running.recorded()] == ["2026-11-21"]


async def test_who_is_refused_is_in_the_log_and_failed_sign_ins_in_the_record_without_tokens(running: Running) -> None:
    with capture_logs() as said:
        async with running.person(Role.VIEWER, by="vera") as vera, running.person() as guesser:
            assert (await vera.get("/audit")).status_code == 403
            assert (await guesser.get("/enter?token=secret-guess")).status_code == 403
            assert (await vera.act("/today/read", token="0" * 64)).status_code == 403
            assert (await guesser.get("/", headers={"host": "elsewhere"})).status_code == 421
    lines = [(one["by"], one["role"], one["path"], one["status"], one["why"]) for one in said
             if one["event"] == "refused"]  # fmt: skip
    assert lines == [
        ("vera", "viewer", "/audit", 403, "admin"), ("", "", "/enter", 403, "link"),
        ("vera", "viewer", "/today/read", 403, "cross_site"), ("", "", "/", 421, ""),
    ]  # fmt: skip
    assert await running.refused(2) == [("vera", "viewer", "/audit", "admin"), ("unknown", "", "/enter", "link")]
    assert "secret-guess" not in str(said) + str(await running.recorded())


async def test_refusals_do_not_fill_the_record(running: Running) -> None:
    async with running.person(Role.VIEWER, by="vera") as vera, running.person(Role.ADMIN) as ann:
        for _ in range(20):
            assert (await vera.get("/audit")).status_code == 403
        await running.refused(5)
        assert "Was refused, and did nothing" in (await ann.get("/audit")).text

"""Who gets in to the console, and what each may do: a real server, and requests as browsers and strangers send them."""

import asyncio
import errno
import fcntl
import os
import re
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console_helpers import Running, console, keep_digests
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.serving import CannotListen
from midwatch.runtime.settings import Settings
from midwatch_services.console import routes
from midwatch_services.console.access import key
from midwatch_services.console.access.roles import Role
from midwatch_services.console.access.session import Sessions
from midwatch_services.console.alone import ConsoleRuns
from midwatch_services.console.routes import Page
from midwatch_services.console.server import ConsolePortTaken
from midwatch_services.console.view import back, session_of

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


async def test_a_one_time_link_signs_in_once_and_that_is_recorded(running: Running) -> None:
    address = running.link(Role.OPERATOR, by="ben")
    async with running.person() as ben:
        assert (await ben.get("/")).headers["location"] == "/sign-in"
        entered = await ben.get(address)
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie and "max-age=43200" in cookie
        page = await ben.get("/")
        assert page.status_code == 200
        assert "Operator: may stop agents" in page.text
    async with running.person() as thief:
        again = await thief.get(address)
        assert again.status_code == 403
        assert "This link was used already" in again.text
        assert "<h1>This link works no more</h1>" in again.text and "This is not for you" not in again.text
        assert "set-cookie" not in again.headers
    assert await running.done() == [
        {"subject": "midwatch.audit._fleet.acted", "by": "ben", "role": "operator", "action": "session.began",
         "detail": {"how": "link"}},
    ]  # fmt: skip


async def test_who_only_asks_what_a_link_is_does_not_use_it_up(running: Running) -> None:
    address = running.link()
    async with running.person() as preview, running.person() as ann:
        assert (await preview.client.head(address)).status_code == 405
        assert (await ann.get(address)).status_code == 303


async def test_a_link_of_another_start_or_with_another_letter_opens_nothing(running: Running) -> None:
    address = running.link()
    async with running.person() as stranger:
        for wrong in (
            address[:-9] + ("A" if address[-9] != "A" else "B") + address[-8:],
            f"{running.url}/enter?token=",
            f"{running.url}/enter",
        ):
            assert (await stranger.get(wrong)).status_code == 403


async def test_a_forged_an_altered_and_an_expired_cookie_are_nobodys(running: Running) -> None:
    name, good = running.cookie(Role.VIEWER)
    long_ago = Sessions(key.load(running.settings), lambda: utc_now() - timedelta(hours=12, seconds=1))
    theirs = Sessions("another key of the same length, 64 letters or so", utc_now)
    body, _, seal = good.rpartition(".")
    for bad in (
        theirs.sealed(theirs.begin("eve", Role.ADMIN)), long_ago.sealed(long_ago.begin("ann", Role.ADMIN)),
        f"{body}x.{seal}", f"{good}x", "", "e30.x",
    ):  # fmt: skip
        async with running.person() as eve:
            eve.client.cookies.set(name, bad)
            assert (await eve.get("/about")).headers.get("location") == "/sign-in?next=%2Fabout", bad
    async with running.person(Role.VIEWER) as ann:
        assert (await ann.get("/about")).status_code == 200


async def test_a_form_of_another_site_is_refused_with_and_without_a_token(running: Running) -> None:
    keep_digests(running.settings)
    async with running.person(Role.ADMIN) as ann, running.person(Role.ADMIN, by="ben") as ben:
        right, of_ben = await ann.token(), await ben.token()
        for token, headers in (
            ("", {}),
            ("0" * 64, {}),
            (of_ben, {}),
            (right, {"sec-fetch-site": "cross-site"}),
            (right, {"sec-fetch-site": "same-site"}),
            (right, {"origin": "https://elsewhere.example"}),
            (right, {"origin": "null"}),
        ):
            answer = await ann.client.post("/today/read", data={"csrf": token}, headers=headers)
            assert answer.status_code == 403, (token, headers)
            assert "did not come from a page of this console" in answer.text
        assert await running.recorded() == []
        ours = {"origin": running.url, "sec-fetch-site": "same-origin", "x-csrf-token": right}
        assert (await ann.client.post("/today/read", headers=ours)).status_code == 303
    assert [one["action"] for one in await running.recorded()] == ["digest.read"]


async def test_an_action_needs_its_role_and_is_recorded_with_who(running: Running) -> None:
    keep_digests(running.settings, "2026-11-21")
    async with running.person(Role.VIEWER, by="vera") as vera:
        done = await vera.act("/today/read", day="2026-11-21")
        assert (done.status_code, done.headers["location"]) == (303, "/?day=2026-11-21")
        assert "recorded that you have read the digest of Saturday, 21 November" in (await vera.get("/")).text
        assert "recorded that" not in (await vera.get("/")).text
    assert await running.recorded() == [
        {"subject": "midwatch.audit._fleet.acted", "by": "vera", "role": "viewer", "action": "digest.read",
         "target": "2026-11-21"},
    ]  # fmt: skip


async def test_signing_out_ends_every_copy_of_the_cookie(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann, running.person() as copy:
        copy.client.cookies.set(*next((c.name, c.value) for c in ann.client.cookies.jar))
        assert (await copy.get("/about")).status_code == 200
        assert (await ann.act("/sign-out")).headers["location"] == "/sign-in"
        assert (await copy.get("/about")).status_code == 303


async def test_another_host_is_told_so_and_nothing_else(running: Running) -> None:
    async with running.person(Role.ADMIN) as ann:
        answer = await ann.get("/", headers={"host": f"rebound.example:{running.port}"})
        assert answer.status_code == 421
        assert "This console has another name" in answer.text
        assert "ann" not in answer.text
        assert (await ann.get("/", headers={"host": f"localhost:{running.port}"})).status_code == 200


async def test_a_viewer_who_posts_what_operators_may_do_is_refused_and_it_is_not_done(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    @routes.action(role=Role.OPERATOR)
    async def halt(request: Request) -> Response:
        await routes.record(request, "switch.halted", agent="desk", target="desk", reason="test")
        done.append(session_of(request).by)
        return back(request, "/")

    pages = [*routes.collect(), Page("test", [Route("/test/halt", halt, methods=["POST"])], "", None)]
    monkeypatch.setattr(routes, "collect", lambda: pages)
    async with console(settings) as running:
        for role in (Role.VIEWER, Role.REVIEWER):
            async with running.person(role, by="vera") as vera:
                answer = await vera.act("/test/halt")
                assert answer.status_code == 403
                assert "It asks for: Operator: may stop agents." in answer.text
        async with running.person() as stranger:
            assert (await stranger.act("/test/halt", token="")).status_code == 401
        async with running.person(Role.OPERATOR, by="olga") as olga:
            assert (await olga.act("/test/halt")).status_code == 303
        assert done == ["olga"]
        assert await running.refused(2) == [
            ("vera", "viewer", "/test/halt", "operator"), ("vera", "reviewer", "/test/halt", "operator"),
        ]  # fmt: skip
        assert await running.done() == [
            {"subject": "midwatch.audit.desk.acted", "by": "olga", "role": "operator", "action": "switch.halted",
             "target": "desk", "detail": {"reason": "test"}},
        ]  # fmt: skip


def test_a_route_without_a_role_or_with_the_wrong_method_does_not_start() -> None:
    async def bare(request: Request) -> Response:
        return Response()

    with pytest.raises(routes.RoleUndeclared, match="/bare does not say who may see it"):
        routes.check(Route("/bare", bare))
    with pytest.raises(routes.WrongMethod, match="a page answers GET alone"):
        routes.check(Route("/page", routes.page(role=Role.VIEWER)(bare), methods=["POST"]))
    with pytest.raises(routes.WrongMethod, match="an action POST alone"):
        routes.check(Route("/act", routes.action(role=Role.VIEWER)(bare)))


async def test_every_answer_has_the_headers_and_no_page_is_kept(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann, running.person() as stranger:
        answers = [
            await ann.get("/"), await ann.get("/about"), await stranger.get("/"), await stranger.get("/sign-in"),
            await stranger.get("/enter"), await ann.get("/no-such-page"), await ann.client.post("/about"),
            await ann.client.post("/today/read"), await ann.client.post("/today/read", content=b"x" * 600_000),
            await ann.get("/", headers={"host": "elsewhere"}), await ann.get("/static/midwatch.css"),
        ]  # fmt: skip
    assert [one.status_code for one in answers] == [200, 200, 303, 200, 403, 404, 405, 403, 413, 421, 200]
    for one in answers:
        assert {name: one.headers.get(name) for name in HEADERS} == HEADERS, one.url
        assert one.headers["cache-control"] == "no-store", one.url
    for one in answers[:2]:
        assert "<style" not in one.text
        assert " style=" not in one.text


async def test_no_page_has_styles_scripts_or_handlers_written_into_it(running: Running) -> None:
    paths = {
        route.path for page in routes.collect() for route in page.routes
        if "{" not in route.path and not routes.needs(route).is_action and routes.needs(route).role is not None
    } - {"/live"}  # fmt: skip
    async with running.person(Role.ADMIN) as ann, running.person() as stranger:
        pages = [await ann.get(path) for path in sorted(paths)] + [await stranger.get("/sign-in")]
    read = [one for one in pages if one.headers.get("content-type", "").startswith("text/html")]
    assert {"/", "/runs", "/stop", "/audit", "/sign-in"} <= {one.url.path for one in read}
    for one in read:
        assert re.findall(r"<[^>]*\s(?:on\w+|style)\s*=|<style|<script(?![^>]*\ssrc=)", one.text) == [], one.url


def test_every_route_declares_a_role_and_only_signing_in_is_for_anybody() -> None:
    found = {route.path: routes.needs(route) for page in routes.collect() for route in page.routes}
    anybody = {path for path, needs in found.items() if needs.role is None}
    assert anybody == {"/sign-in", "/enter", "/sign-in/begin", "/sign-in/back"}
    assert not any(needs.is_action for path, needs in found.items() if path in anybody)


async def test_a_port_that_is_taken_is_one_line_that_names_the_setting(running: Running, settings: Settings) -> None:
    second = settings.model_copy(update={"console_port": running.port, "home": settings.home / "second"})
    with pytest.raises(ConsolePortTaken) as caught:
        async with console(second):
            pass
    assert str(caught.value) == (
        f"Port {running.port} on 127.0.0.1, for the console, is taken: stop what uses it, or choose another with "
        "MIDWATCH_CONSOLE_PORT (0 picks a free one)."
    )


async def test_a_second_console_in_one_folder_is_one_line_that_names_the_first(
    running: Running, settings: Settings
) -> None:
    with pytest.raises(ConsoleRuns) as caught:
        async with console(settings):
            pass
    assert str(caught.value) == (
        f"A console runs already in {settings.home}, at http://127.0.0.1:{running.port} (pid {os.getpid()}): use it, "
        f"stop it with `kill {os.getpid()}`, or give this one a folder and a port of its own with MIDWATCH_HOME and "
        "MIDWATCH_CONSOLE_PORT."
    )
    assert (settings.home / "console.json").exists()


async def test_a_console_starts_on_a_volume_without_locks(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    async with console(settings) as running, running.person(Role.VIEWER) as vera:
        assert (await vera.get("/")).status_code == 200


async def test_an_address_that_is_not_this_machines_is_one_line_that_names_the_settings(
    js: JetStreamContext, settings: Settings
) -> None:
    provider = {
        "oidc_issuer": "https://issuer.example", "oidc_client_id": "midwatch", "oidc_roles": "staff=viewer",
        "console_url": "https://midwatch.example", "console_host": "192.0.2.1",
    }  # fmt: skip
    with pytest.raises(CannotListen) as caught:
        async with console(settings.model_copy(update=provider)):
            pass
    assert str(caught.value) == (
        "Nothing can listen on port 0 of 192.0.2.1 (Cannot assign requested address): set MIDWATCH_CONSOLE_HOST to an "
        "address of this machine, and MIDWATCH_CONSOLE_PORT to a port that this user may open, such as one above 1023 "
        "(0 picks a free one)."
    )


async def test_an_open_page_is_nudged_when_something_moves(running: Running) -> None:
    keep_digests(running.settings)
    async with running.person(Role.ADMIN) as ann:
        async with ann.client.stream("GET", "/live?on=audit&on=nonsense", timeout=10) as stream:
            events = stream.aiter_lines()
            heard: list[str] = []

            async def until(line: str) -> None:
                async for one in events:
                    heard.append(one)
                    if one == line:
                        return

            await until("event: ready")
            assert (await ann.act("/today/read")).status_code == 303
            async with asyncio.timeout(5):
                await until("data: audit")
        assert "event: moved" in heard


async def test_without_the_bus_a_page_still_answers_and_an_action_says_that_nothing_was_recorded(
    running: Running, nats_server: object
) -> None:
    keep_digests(running.settings)
    async with running.person(Role.VIEWER) as ann:
        token = await ann.token()
        nats_server.kill()  # type: ignore[attr-defined]
        assert (await ann.get("/")).status_code == 200
        answer = await ann.act("/today/read", token)
        assert answer.status_code == 503
        assert "could not be recorded" in answer.text

"""Signing in to the console at an OpenID provider: who one is, and when its word does not hold."""

import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from nats.js import JetStreamContext
from structlog.testing import capture_logs
from typer.testing import CliRunner

import oidc_provider
from console_helpers import Running, console
from midwatch.errors import Misconfigured
from midwatch.runtime.settings import Settings
from midwatch_services import cli
from midwatch_services.console.access import link
from midwatch_services.console.access.link import NoLinks
from midwatch_services.console.access.policy import policy_of
from midwatch_services.console.access.roles import Role
from oidc_provider import CLIENT, SECRET, Provider
from stack import free_port

GROUPS = {"email": "olga@shop.example", "email_verified": True, "groups": ["staff", "midwatch-operators"]}


@pytest.fixture
async def issuer() -> AsyncIterator[Provider]:
    async with oidc_provider.provider() as one:
        yield one


def _settings(settings: Settings, issuer: Provider, **more: Any) -> Settings:
    port = free_port()
    given = {
        "home": settings.home, "nats_url": settings.nats_url, "http_port": 0, "console_port": port,
        "console_url": f"http://127.0.0.1:{port}", "oidc_issuer": issuer.url, "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET, "oidc_roles": "midwatch-operators=operator,staff=viewer,boss=admin", **more,
    }  # fmt: skip
    return Settings(**given)


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings, issuer: Provider) -> AsyncIterator[Running]:
    async with console(_settings(settings, issuer)) as one:
        yield one


async def _sign_in(client: httpx.AsyncClient, path: str = "/sign-in/begin") -> httpx.Response:
    """Follows the way there and back; the answer is the console's to what came back."""
    begun = await client.get(path)
    assert begun.status_code == 303, begun.text
    there = await client.get(begun.headers["location"])
    return await client.get(there.headers["location"])


async def test_the_issuer_says_who_one_is_and_the_highest_of_ones_roles_counts(
    running: Running, issuer: Provider
) -> None:
    issuer.claims = GROUPS
    async with running.person() as olga:
        assert issuer.url in (await olga.get("/sign-in")).text
        done = await _sign_in(olga.client, "/sign-in/begin?next=%2Fabout")
        assert (done.status_code, done.headers["location"]) == (303, "/about")
        page = (await olga.get("/about")).text
        assert "olga@shop.example" in page
        assert "Operator: may stop agents" in page
    assert issuer.asked[0]["scope"] == "openid email profile"
    assert [(one["by"], one["role"], one["detail"]) for one in await running.recorded()] == [
        ("olga@shop.example", "operator", {"how": "issuer"})
    ]


@pytest.mark.parametrize("checked", [{"email_verified": False}, {"email_verified": "true"}, {}])
async def test_an_address_that_nobody_checked_is_not_believed(
    running: Running, issuer: Provider, checked: dict[str, Any]
) -> None:
    issuer.claims = {**{name: value for name, value in GROUPS.items() if name != "email_verified"}, **checked}
    async with running.person() as somebody:
        await _sign_in(somebody.client)
        assert "u-17" in (await somebody.get("/about")).text


@pytest.mark.parametrize("name", ["", "  "])
async def test_a_blank_name_is_nobodys(js: JetStreamContext, settings: Settings, issuer: Provider, name: str) -> None:
    issuer.claims = {**GROUPS, "nickname": name}
    async with (
        console(_settings(settings, issuer, oidc_name_claim="nickname")) as running,
        running.person() as somebody,
    ):
        await _sign_in(somebody.client)
        assert [one["by"] for one in await running.recorded()] == ["u-17"]


async def test_who_has_no_role_is_told_so_and_stays_out(running: Running, issuer: Provider) -> None:
    issuer.claims = {**GROUPS, "groups": ["visitors"]}
    async with running.person() as guest:
        answer = await _sign_in(guest.client)
        assert answer.status_code == 403
        assert "olga@shop.example is known, but has no role here yet" in answer.text
        assert (await guest.get("/about")).status_code == 303
    assert await running.refused(1) == [("olga@shop.example", "", "/sign-in/back", "no_role")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("error=access_denied", "Signing in was called off"), ("error=server_error", "does not hold"),
        ("code=", "does not hold"), ("%63ode=x", "does not hold"),
        ("error=access_denied&xcode=1", "Signing in was called off"),
    ],
)  # fmt: skip
async def test_a_sign_in_that_brings_no_code_never_asks_for_a_token_in_the_consoles_own_name(
    running: Running, issuer: Provider, answer: str, words: str
) -> None:
    async with running.person() as olga:
        begun = httpx.URL((await olga.get("/sign-in/begin")).headers["location"])
        page = await olga.get(f"/sign-in/back?{answer}&state={begun.params['state']}")
        assert page.status_code == 403
        assert words in page.text
        assert (await olga.get("/about")).status_code == 303
    assert {one["grant_type"] for one in issuer.exchanged} <= {"authorization_code"}


@pytest.mark.parametrize(
    "spoil", [{"nonce": "another"}, {"aud": "another-client"}, {"iss": "https://elsewhere.example"}, {"exp": 1_000_000},
              {"aud": [CLIENT, "other"]}, {"aud": [CLIENT, "other"], "azp": "other"}],
)  # fmt: skip
async def test_a_token_for_another_sign_in_client_issuer_or_time_lets_nobody_in(
    running: Running, issuer: Provider, spoil: dict[str, Any]
) -> None:
    issuer.claims, issuer.spoil = GROUPS, spoil
    async with running.person() as olga:
        page = await _sign_in(olga.client)
        assert page.status_code == 403
        assert "sign-in answered does not hold" in page.text
        assert "does not belong to the sign-in that it began" not in page.text
        assert (await olga.get("/about")).status_code == 303


async def test_a_token_of_another_key_lets_nobody_in_and_a_new_key_of_the_issuer_does(
    running: Running, issuer: Provider
) -> None:
    issuer.claims, issuer.signing = GROUPS, RSAKey.generate_key(2048, {"kid": "first"})
    async with running.person() as olga:
        assert (await _sign_in(olga.client)).status_code == 403
        issuer.key = issuer.signing
        assert (await _sign_in(olga.client)).status_code == 303


async def test_the_answer_counts_once_and_only_in_the_browser_that_began(running: Running, issuer: Provider) -> None:
    issuer.claims = GROUPS
    async with running.person() as olga, running.person() as eve:
        there = await olga.get((await olga.get("/sign-in/begin")).headers["location"])
        back = there.headers["location"]
        assert (await eve.get(back)).status_code == 403
        assert (await olga.get(back)).status_code == 303
        assert (await olga.get(back)).status_code == 403


@pytest.mark.parametrize(
    "place", ["https%3A%2F%2Fevil.example", "%2F%2Fevil.example", "%2F%5Cevil.example", "%2Fa%0d%0ab"]
)
async def test_nobody_is_sent_to_another_site_after_signing_in(running: Running, issuer: Provider, place: str) -> None:
    issuer.claims = GROUPS
    async with running.person() as olga:
        assert (await _sign_in(olga.client, f"/sign-in/begin?next={place}")).headers["location"] == "/"


async def test_there_are_no_links_beside_an_issuer(running: Running, issuer: Provider) -> None:
    with pytest.raises(NoLinks, match=f"People sign in to this console at {issuer.url}"):
        running.link()
    async with running.person() as stranger:
        assert (await stranger.get("/enter?token=x")).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "claims", "spoil", "why"),
    [
        ({"oidc_client_secret": "another"}, GROUPS, {}, "invalid_client"),
        ({}, GROUPS, {"aud": "another-client"}, "aud"),
        ({"oidc_role_claim": "roles"}, GROUPS, {}, "the issuer's answer has no claim 'roles'"),
        ({}, {**GROUPS, "groups": ["visitors"]}, {},
         "of ['visitors'], its claim 'groups', MIDWATCH_OIDC_ROLES names none"),
    ],
)  # fmt: skip
async def test_why_an_answer_did_not_hold_stands_in_the_log_without_code_or_secret(
    js: JetStreamContext, settings: Settings, issuer: Provider, wrong: dict[str, Any], claims: dict[str, Any],
    spoil: dict[str, Any], why: str,
) -> None:  # fmt: skip
    issuer.claims, issuer.spoil = claims, spoil
    async with console(_settings(settings, issuer, **wrong)) as running, running.person() as olga:
        with capture_logs() as logs:
            assert (await _sign_in(olga.client)).status_code == 403
        (told,) = [one for one in logs if one["event"] == "sign_in_does_not_hold"]
        assert why in told["why"]
        given = {issuer.exchanged[0][name] for name in ("code", "code_verifier")} | {SECRET}
        assert not [one for one in given if one in str(logs)]


async def test_why_an_issuer_refused_before_it_gave_a_code_stands_in_the_log_on_one_line(
    running: Running, issuer: Provider
) -> None:
    async with running.person() as olga:
        begun = httpx.URL((await olga.get("/sign-in/begin")).headers["location"])
        with capture_logs() as logs:
            words = f"error=invalid_scope&error_description=no%0Agroups&state={begun.params['state']}"
            await olga.get(f"/sign-in/back?{words}")
            await olga.get("/sign-in/back?code=1&state=another")
        assert [one["why"] for one in logs if one["event"] == "sign_in_does_not_hold"] == [
            "invalid_scope: no groups",
            "its state is not that of a sign-in which this browser began here within 10 minutes",
        ]


async def test_a_stranger_cannot_have_the_issuer_asked_as_often_as_they_like(
    running: Running, issuer: Provider
) -> None:
    began, answers = time.monotonic(), []
    async with running.person() as eve, running.person(Role.VIEWER) as ann:
        for _ in range(40):
            begun = httpx.URL((await eve.get("/sign-in/begin")).headers.get("location", ""))
            answers.append(await eve.get(f"/sign-in/back?code=junk&state={begun.params.get('state', '')}"))
        assert answers[-1].status_code == 429
        assert len(issuer.exchanged) <= 10 + 2 * (time.monotonic() - began)
        assert (await ann.get("/about")).status_code == 200


async def test_an_issuer_that_is_away_is_said_in_plain_words(
    js: JetStreamContext, settings: Settings, issuer: Provider
) -> None:
    away = _settings(settings, issuer, oidc_issuer=f"http://127.0.0.1:{free_port()}")
    async with console(away) as running, running.person() as olga:
        answer = await olga.get("/sign-in/begin")
        assert answer.status_code == 503
        assert "does not sign anybody in just now" in answer.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"console_host": "0.0.0.0"}, "with no way to tell who they are: set MIDWATCH_OIDC_ISSUER"),
        ({"oidc_issuer": "http://id.example", "oidc_client_id": "c", "console_url": "https://c.example",
          "oidc_roles": "staff=viewer"}, "set MIDWATCH_OIDC_ISSUER to an address that begins with https://"),
        ({"oidc_issuer": "https://id.example"}, "MIDWATCH_OIDC_ISSUER needs MIDWATCH_OIDC_CLIENT_ID as well"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "c", "console_url": "https://c.example"},
         "needs MIDWATCH_OIDC_ROLES as well"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "c", "console_url": "https://c.example",
          "oidc_roles": "staff=king"}, "'staff=king' gives no role"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "c", "console_url": "http://c.example",
          "oidc_roles": "staff=viewer"}, "set MIDWATCH_CONSOLE_URL to an address that begins with https://"),
    ],
)  # fmt: skip
def test_a_console_that_nobody_could_sign_in_to_does_not_start(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        policy_of(Settings(**given))


def test_without_a_console_the_link_command_says_how_to_start_one() -> None:
    done = CliRunner().invoke(cli.app, ["console", "link"])
    assert done.exit_code == 1
    assert done.stderr == (
        f"midwatch: No console runs whose state is in {Settings().home}: start it with `midwatch up` or `midwatch run "
        "console`, or set MIDWATCH_HOME to the folder of the one that runs.\n"
    )
    assert CliRunner().invoke(cli.app, ["console", "link", "--role", "king"]).exit_code == 2


def test_a_console_that_was_killed_gives_no_link_though_its_pid_is_anothers_since() -> None:
    link.write(Settings().home, link.Running(f"http://127.0.0.1:{free_port()}", "boot", os.getpid()))
    done = CliRunner().invoke(cli.app, ["console", "link"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "No console runs whose state is in" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_console_of_another_user_is_said_to_be_anothers() -> None:
    link.write(Settings().home, link.Running(f"http://127.0.0.1:{free_port()}", "boot", os.getpid()))
    (Settings().home / "console.json").chmod(0)
    done = CliRunner().invoke(cli.app, ["console", "link"])
    assert done.stderr == (
        f"midwatch: The console whose state is in {Settings().home} is another user's: type this as the user who "
        "started it.\n"
    )

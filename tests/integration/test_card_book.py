"""Services follow the cards: on a nudge, on the re-read, after a restart of the server."""

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import control, subjects
from midwatch.contracts.control import BudgetRule, Card, ReviewRule
from midwatch.errors import Temporary
from midwatch.runtime import card_book
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.nats_server import NatsServer


def card(agent: str, rate: float) -> Card:
    return Card(agent=agent, owner="Ann", purpose="p", can=["c"], review=ReviewRule(rate=rate))


async def put(js: JetStreamContext, agent: str, value: bytes | Card) -> None:
    body = value if isinstance(value, bytes) else control.encode(value)
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), body)


@pytest.fixture
async def book(js: JetStreamContext, nc: Client) -> AsyncIterator[CardBook]:
    await put(js, "desk", card("desk", 0.5))
    book = CardBook(js, nc)
    await book.start()
    yield book
    await book.close()


async def test_cards_are_there_when_it_has_started(book: CardBook) -> None:
    assert book.get("desk").review.rate == 0.5


async def test_an_agent_without_a_card_has_safe_defaults(book: CardBook) -> None:
    assert book.get("unknown").review.rate == 0.2
    assert book.get("unknown").budget == BudgetRule(run="1", ticket="2")


async def test_a_new_card_and_a_changed_one_arrive_by_themselves(book: CardBook, js: JetStreamContext) -> None:
    await put(js, "desk", card("desk", 0.1))
    await put(js, "other", card("other", 0.9))
    await eventually(lambda: (book.get("desk").review.rate, book.get("other").review.rate) == (0.1, 0.9))


@pytest.mark.parametrize("body", [b"{", b"", b'{"agent": "desk"}', b"[" * 100_000, control.encode(card("other", 0.9))])
async def test_an_unreadable_card_leaves_the_last_good_one_in_force(
    book: CardBook, js: JetStreamContext, body: bytes
) -> None:
    await put(js, "desk", body)
    await put(js, "after", card("after", 0.7))
    await eventually(lambda: book.get("after").review.rate == 0.7)
    assert book.get("desk").review.rate == 0.5


async def test_after_a_restart_too_the_last_good_card_is_in_force(js: JetStreamContext, nc: Client) -> None:
    for body in (card("desk", 0.4), card("desk", 0.5), b"{"):
        await put(js, "desk", body)
    await put(js, "gone", card("gone", 0.5))
    await (await js.key_value(subjects.AGENTS)).delete("gone")
    await put(js, "gone", b"{")
    book = CardBook(js, nc)
    await book.start()
    assert (book.get("desk").review.rate, book.get("gone").review.rate) == (0.5, 0.2)
    await book.close()


async def test_a_removed_card_gives_way_to_the_defaults(book: CardBook, js: JetStreamContext) -> None:
    await (await js.key_value(subjects.AGENTS)).delete("desk")
    await eventually(lambda: book.get("desk").review.rate == 0.2)


async def test_a_missed_nudge_is_made_good_by_the_reread(
    js: JetStreamContext, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_book, "REREAD", 0.05)
    monkeypatch.setattr(card_book, "_TICK", 0.05)
    monkeypatch.setattr(subjects, "CONTROL", "midwatch.elsewhere")
    book = CardBook(js, nc)
    await book.start()
    await put(js, "desk", card("desk", 0.1))
    await eventually(lambda: book.get("desk").review.rate == 0.1)
    await book.close()


async def test_it_follows_on_after_the_server_restarted(
    book: CardBook, js: JetStreamContext, nats_server: NatsServer
) -> None:
    nats_server.kill()
    await nats_server.restart()
    await eventually(lambda: js._nc.is_connected)
    await put(js, "desk", card("desk", 0.3))
    await eventually(lambda: book.get("desk").review.rate == 0.3)


async def test_a_change_made_while_it_was_cut_off_is_read_on_reconnect(
    book: CardBook, nats_server: NatsServer, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nats

    other = await nats.connect(nats_server.url)
    await book._subscription.unsubscribe()  # the nudge does not arrive
    await put(other.jetstream(), "desk", card("desk", 0.4))
    await other.close()
    nc.stats["reconnects"] += 1
    await eventually(lambda: book.get("desk").review.rate == 0.4)


async def test_without_a_bucket_it_does_not_start(nc: Client) -> None:
    with pytest.raises(Temporary, match="MIDWATCH_AGENTS cannot be read"):
        await CardBook(nc.jetstream(), nc).start()

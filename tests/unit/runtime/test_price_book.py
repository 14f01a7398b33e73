"""The operator's prices follow their file, and a mistake in it stops nothing."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from midwatch.contracts.runs import Usage
from midwatch.runtime import price_book, pricing
from midwatch.runtime.price_book import PriceBook
from midwatch.runtime.settings import Settings

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LISTED = Decimal("0.15")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "prices.yaml"
    pricing.use(())


def amount() -> Decimal | None:
    return pricing.price("openai", "gpt-4o-mini", Usage(input_tokens=1_000_000), None, AT).amount


def write(path: Path, dollars: int | str) -> None:
    """Another price, in a file of another time of change."""
    path.write_text(f"openai: {{gpt-4o-mini: {{input: {dollars}, output: 1}}}}\n", encoding="utf-8")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))


async def look(book: PriceBook) -> None:
    """The two looks after which a file that rests is read."""
    await book.check()
    await book.check()


async def test_a_changed_file_holds_at_the_second_look_at_it(path: Path) -> None:
    write(path, 3)
    book = PriceBook(path, needed=False)
    await book.load()
    assert amount() == Decimal(3)
    write(path, 40)
    await book.check()
    assert amount() == Decimal(3)  # it may still be being written
    await book.check()
    assert amount() == Decimal(40)


async def test_a_mistake_keeps_the_last_good_prices_and_is_logged_once(path: Path) -> None:
    write(path, 3)
    book = PriceBook(path, needed=False)
    await book.load()
    write(path, "much")
    with capture_logs() as logs:
        for _ in range(5):
            await book.check()
    assert amount() == Decimal(3)
    assert [(line["event"], line["mistakes"], line["kept"]) for line in logs] == [("prices_not_read", 1, 1)]
    assert logs[0]["first"] == f"{path}:1:31: `openai.gpt-4o-mini.input` must be US dollars such as $1 or 0.50"
    assert book.wrong
    write(path, 5)
    await look(book)
    assert (amount(), book.wrong) == (Decimal(5), [])


async def test_with_a_mistake_at_the_start_the_lists_own_prices_hold(path: Path) -> None:
    write(path, "much")
    book = PriceBook(path, needed=True)
    await book.load()
    assert amount() == LISTED
    assert len(book.wrong) == 1


async def test_a_file_that_comes_later_is_taken_and_one_that_goes_is_let_go(path: Path) -> None:
    book = PriceBook(path, needed=False)
    await book.load()
    assert (amount(), book.wrong) == (LISTED, [])
    write(path, 3)
    await look(book)
    assert amount() == Decimal(3)
    path.unlink()
    await look(book)
    assert (amount(), book.wrong) == (LISTED, [])


async def test_one_that_a_setting_names_is_missed_where_it_is_gone(path: Path) -> None:
    write(path, 3)
    book = PriceBook(path, needed=True)
    await book.load()
    path.unlink()
    await look(book)
    assert amount() == Decimal(3)
    assert book.wrong == [f"{path}: cannot be read: no such file or directory"]


async def test_a_service_that_starts_again_keeps_what_its_process_read_last(path: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    write(path, 3)
    await price_book.of(settings).load()
    write(path, "much")
    await price_book.of(settings).load()
    assert amount() == Decimal(3)

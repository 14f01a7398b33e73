"""The operator's prices as the services use them: read at the start, and again whenever the file changes."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from . import pricing, telemetry
from .price_file import PriceErrors, PriceFile
from .price_file import read as read_file
from .settings import Settings

if TYPE_CHECKING:
    from .service import Context

EVERY = 2.0  # seconds between two looks at the file
_Stamp = tuple[int, int, int] | None  # None where there is no file

log = structlog.get_logger("midwatch.prices")


class PriceBook:
    """The file at `path`. While it cannot be read, the prices read last hold, or none but those of genai-prices; that
    is logged once. `needed`: a setting names the file, so that its absence is a mistake."""

    def __init__(self, path: Path, *, needed: bool) -> None:
        self._path, self._needed = path, needed
        self._last = PriceFile()
        self._read_at: _Stamp = None
        self._seen_at: _Stamp = None
        self.wrong: list[str] = []  # the mistakes in the file as it is now

    async def load(self) -> None:
        """Reads the file and puts its prices in force."""
        self._seen_at = await asyncio.to_thread(_stamp, self._path)
        await self._read()

    async def check(self) -> None:
        """Reads the file if it has changed, once it rests: one that is being written is not whole."""
        stamp = await asyncio.to_thread(_stamp, self._path)
        rests, self._seen_at = stamp == self._seen_at, stamp
        if rests and stamp != self._read_at:
            await self._read()

    async def _read(self) -> None:
        self._read_at, kept = self._seen_at, len(self._last.overrides)
        try:
            self._last = await asyncio.to_thread(find, self._path, needed=self._needed)
            self.wrong = []
        except PriceErrors as error:
            self.wrong = error.lines
            log.error("prices_not_read", first=error.lines[0], mistakes=len(error.lines), kept=kept)
        else:
            now = len(self._last.overrides)
            if now or kept:
                log.info("prices_read", file=str(self._path), prices=now, notes=self._last.notes)
        pricing.use(self._last.overrides)


_books: dict[tuple[Path, bool], PriceBook] = {}  # services of one process share one


def of(settings: Settings) -> PriceBook:
    """The book of the file that the settings name."""
    key = settings.prices_path.absolute(), settings.prices_file is not None
    return _books.setdefault(key, PriceBook(key[0], needed=key[1]))


def find(path: Path, *, needed: bool) -> PriceFile:
    """The prices in the file; none where it is not there and need not be. Raises PriceErrors."""
    return PriceFile() if not needed and _stamp(path) is None else read_file(path)


def use(settings: Settings) -> None:
    """Puts the prices in force for a command, which reads them once. Raises PriceErrors."""
    pricing.use(find(settings.prices_path, needed=settings.prices_file is not None).overrides)


def follow(context: "Context") -> None:
    """Has a service read the prices before its first event, and again when they change."""
    book = of(context.settings)
    wrong = telemetry.PRICES_WRONG.labels(context.name)

    async def read() -> None:
        await book.load()
        wrong.set(bool(book.wrong))

    async def read_again() -> None:
        await book.check()
        wrong.set(bool(book.wrong))

    context.on_start(pricing.load)
    context.on_start(read)
    context.every(EVERY, read_again)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

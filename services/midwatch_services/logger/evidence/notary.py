"""Makes a checkpoint each minute if a head moved."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime.database import Database

from ..decide import text_of
from . import checkpoint_store, checkpoints
from .chain import Tail
from .keys import SigningKey, load_or_make

EVERY = 60.0  # seconds
_SOON = 5 / 6  # of several processes one makes the checkpoint of a minute

log = structlog.get_logger("midwatch.logger")


class Notary:
    """Signs where the chains end. Without a key that it may use, sealing goes on and each attempt is a warning."""

    def __init__(self, database: Database, key_file: Path, now: Callable[[], datetime]) -> None:
        self._database, self._key_file, self._now = database, key_file, now
        self._key: SigningKey | None = None

    async def start(self) -> None:
        """Makes the key where there is none yet."""
        self._load_key()

    async def tick(self) -> None:
        """Makes a checkpoint, unless nothing moved or one was made just now. Raises Temporary."""
        key = self._key or self._load_key()
        if key is None:
            return
        before, moved = await self._database.read(_state)
        now = self._now()
        if not moved or (before and before.at > text_of(now - timedelta(seconds=EVERY * _SOON))):
            return
        await self._add(before, moved, now, key)

    async def _add(self, before: Checkpoint | None, moved: dict[str, Tail], now: datetime, key: SigningKey) -> None:
        made = checkpoints.make(before, moved, text_of(now), key)
        faults.reach("notary.signed")
        if await self._database.write(lambda conn: checkpoint_store.add(conn, made)):
            faults.reach("notary.kept")

    def _load_key(self) -> SigningKey | None:
        try:
            self._key = load_or_make(self._key_file)
        except (MidwatchError, OSError) as error:
            log.warning("no_checkpoint_is_signed", error=str(error))
        return self._key


def _state(conn: Connection) -> tuple[Checkpoint | None, dict[str, Tail]]:
    return checkpoint_store.last(conn), checkpoint_store.moved(conn)

"""pager.yaml as the service sees it: read at its start and whenever it has changed."""

import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from . import load
from .load import PagerFileErrors
from .policy import NOBODY, Policy

log = structlog.get_logger("midwatch.pager")


class PagerBook:
    """The policy in force. A file that is wrong leaves the last good one; without one, nobody is told of anything."""

    def __init__(self, path: Path, environment: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.policy: Policy = NOBODY
        self._environment = os.environ if environment is None else environment
        self._seen: object = ()

    def look(self) -> set[str] | None:
        """Reads the file if it is another than before: the channels that are new or changed, or None where it is the
        same. Blocks."""
        try:
            stat = self.path.stat()
            seen: object = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            seen = None
        except OSError:
            return None  # a disk that does not answer is no word to page nobody
        if seen == self._seen:
            return None
        self._seen = seen
        before = self.policy
        if seen is None:
            self.policy = NOBODY
            log.warning("nobody_is_paged", why=nobody(self.path))
            return set()
        try:
            loaded = load.read(self.path, self._environment)
        except PagerFileErrors as error:
            kept = "the last good one stays in force" if before.reaches_somebody else "nobody is paged"
            log.error("pager_file_wrong", kept=kept, mistakes=error.lines[:20])
            return set()
        self.policy = loaded.policy
        for note in loaded.notes:
            log.error("channel_cannot_be_used", why=note)
        log.info("pager_file_read", file=str(self.path), channels=sorted(loaded.policy.channels))
        return {name for name, one in loaded.policy.channels.items() if before.channels.get(name) != one}


def nobody(path: Path) -> str:
    """What is said where there is no file."""
    return f"there is no {path}: alerts are kept and nobody is told of them; `midwatch pager new` writes a start"

"""Whether anybody is told of alerts, as far as the console can know."""

import asyncio
import os
from functools import lru_cache
from pathlib import Path

from midwatch import locate
from midwatch.contracts import subjects
from midwatch.runtime.settings import Settings
from midwatch_services.pager import load

NEW, CHECK = "midwatch pager new", "midwatch pager check"


async def mend(settings: Settings) -> str:
    """The command that leads to somebody being told, where it is known that nobody is; else nothing."""
    return await asyncio.to_thread(_mend, settings)


def _mend(settings: Settings) -> str:
    # The file is the pager's own only where both run in one `midwatch up`.
    if subjects.PAGER not in locate.run_file(settings.home).get("http", {}):
        return ""
    path = settings.pager_yaml
    try:
        stat = path.stat()
    except FileNotFoundError:
        return NEW
    except OSError:
        return ""
    return "" if _reaches(path, stat.st_mtime_ns, stat.st_size, stat.st_ino) else CHECK


@lru_cache(maxsize=1)
def _reaches(path: Path, *_: int) -> bool:
    """Whether one of the file's channels can be used; of a file that is wrong the pager keeps the last good one."""
    try:
        policy = load.read(path, os.environ).policy
    except load.PagerFileErrors:
        return True
    return any(not one.broken for one in policy.channels.values())

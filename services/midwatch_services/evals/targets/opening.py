"""From what stands behind `--target` to what answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from midwatch.runtime.broker import connection

from ..case import Case, Missing
from .base import Target
from .bus import BusAgent
from .http import HttpAgent
from .module import ModuleTarget
from .recorded import load
from .remote import RemoteTarget


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a target is asked. `within`: seconds that one turn may take. `model`: of recorded runs. `nats_url`: of the
    bus, which only the target `nats` uses."""

    target: str
    version: str
    within: float = 60.0
    missing: Missing | None = None
    model: str | None = None
    nats_url: str = ""

    @property
    def shown(self) -> str:
        """The target as results keep it: without what may be secret in an address."""
        if not self.target.startswith(("http://", "https://")):
            return self.target
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@asynccontextmanager
async def opened(wanted: Wanted, cases: Sequence[Case]) -> AsyncIterator[Target]:
    """The target, until the block is left. Raises BadTarget, or Temporary where no bus answers."""
    how = (wanted.version, wanted.within, wanted.missing)
    if wanted.target == "nats":
        async with connection(wanted.nats_url) as client:
            yield RemoteTarget(BusAgent(client, wanted.within), *how)
    elif wanted.target.startswith(("http://", "https://")):
        yield RemoteTarget(HttpAgent(wanted.target, wanted.within), *how)
    elif wanted.target.startswith("recorded:"):
        yield load(Path(wanted.target.removeprefix("recorded:")), wanted.model, cases)
    else:
        target = ModuleTarget(wanted.target, *how)
        try:
            await target.open()
            yield target
        finally:
            await target.close()

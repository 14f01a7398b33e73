"""What answers at a service's address while the service waits for what it needs."""

from collections.abc import Callable

from .serving import Serving
from .settings import Settings

Make = Callable[[Settings], Serving | None]


class Standin:
    """Listens in place of a service; with nothing to make, does nothing."""

    def __init__(self, make: Make | None, settings: Settings) -> None:
        self._make, self._settings = make, settings
        self._serving: Serving | None = None

    async def begin(self) -> None:
        """Answers from here on, as far as it does not already. Raises what listening does."""
        if self._serving is None and self._make and (serving := self._make(self._settings)):
            await serving.start()
            self._serving = serving

    async def end(self) -> None:
        """Leaves the address to the service."""
        serving, self._serving = self._serving, None
        if serving:
            await serving.close()

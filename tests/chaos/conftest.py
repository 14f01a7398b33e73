"""Fixtures for tests that kill processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import stack as whole


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """The services' database; None is SQLite, a file a service."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


@pytest.fixture
async def stack(tmp_path: Path, database_url: str | None) -> AsyncIterator[whole.Stack]:
    """NATS, and the services that the test starts."""
    async with whole.running(tmp_path, database_url) as found:
        yield found

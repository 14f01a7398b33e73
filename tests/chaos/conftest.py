"""Fixtures for tests that kill processes, and the figures that these measured, at the end of what pytest prints."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import stack as whole

Figure = Callable[[str, float, str, float], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """The services' database; None is SQLite, a file a service."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


@pytest.fixture
async def stack(tmp_path: Path, database_url: str | None) -> AsyncIterator[whole.Stack]:
    """NATS, and the services that the test starts."""
    async with whole.running(tmp_path, database_url) as found:
        yield found


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[whole.Stack]:
    """The same on SQLite alone, for what the database has no part in."""
    async with whole.running(tmp_path) as found:
        yield found


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a line at the end of the session."""
    return lambda line: record_property("figure", line)


@pytest.fixture
def figure(say: Callable[[str], None]) -> Figure:
    """Prints a measurement at the end of the session, and holds it to its limit."""

    def measured(what: str, value: float, unit: str, limit: float) -> None:
        say(f"{what}: {value:.3g} {unit} (limit {limit:g})")
        assert value <= limit, f"{what}: {value:g} {unit}, the limit is {limit:g}"

    return measured


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for some in terminalreporter.stats.values() for one in some if isinstance(one, pytest.TestReport)]
    for report in reports:
        for name, line in report.user_properties if report.when == "call" else ():
            if name == "figure":
                terminalreporter.write_line(f"figure: {line}")

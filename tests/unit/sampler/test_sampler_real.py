"""The draw over the ids of published runs of real agents: as many as its rate says, however they ended."""

import csv
from math import sqrt
from pathlib import Path

import pytest

from midwatch_services.reviewer_sampler.decide import Run, draw

pytestmark = pytest.mark.proof

KEYS = [bytes([number]) * 32 for number in range(4)]
RATES = [0.02, 0.05, 0.1, 0.2, 0.25]


@pytest.fixture(scope="module")
def published(data_dir: Path) -> list[tuple[Run, bool]]:
    with (data_dir / "agent-runs" / "index.csv").open(encoding="utf-8") as file:
        return [
            (Run(row["domain"], row["run_id"], "live"), float(row["reward"]) == 1.0) for row in csv.DictReader(file)
        ]


def share(runs: list[Run], key: bytes, rate: float) -> float:
    return sum(draw(key, run) < rate for run in runs) / len(runs)


@pytest.mark.data
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("key", KEYS)
def test_over_the_published_runs_the_share_drawn_is_the_rate(
    published: list[tuple[Run, bool]], key: bytes, rate: float
) -> None:
    assert len(published) == 653
    error = sqrt(rate * (1 - rate) / len(published))
    assert abs(share([run for run, _ in published], key, rate) - rate) < 3 * error


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("key", KEYS)
def test_over_ten_thousand_ids_the_share_drawn_is_the_rate(key: bytes, rate: float) -> None:
    runs = [Run("desk", f"run-{number}", "live") for number in range(10_000)]
    assert abs(share(runs, key, rate) - rate) < 3 * sqrt(rate * (1 - rate) / 10_000)


def correlation(xs: list[float], ys: list[float]) -> float:
    """Pearson's; of two yes-or-no it is phi, of one the point-biserial."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    both = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return both / sqrt(sum((a - x) ** 2 for a in xs) * sum((b - y) ** 2 for b in ys))


@pytest.mark.data
@pytest.mark.parametrize("key", KEYS)
def test_the_draw_knows_nothing_of_how_a_run_ended(published: list[tuple[Run, bool]], key: bytes) -> None:
    passed = [float(ok) for _, ok in published]
    assert sum(passed) == 343
    limit = 3 / sqrt(len(published))
    values = [draw(key, run) for run, _ in published]
    assert abs(correlation(values, passed)) < limit
    for rate in RATES:
        assert abs(correlation([float(value < rate) for value in values], passed)) < limit


@pytest.mark.parametrize(
    ("run", "bits"),
    [
        (Run("refund-desk", "run-8c1f", "live"), 0x0A3B81DD9E8C717A),
        (Run("refund-desk", "run-8c1f", "replay"), 0x664E91A20878AF63),
        (Run("desk", "café", "live"), 0xCB2964745E25C796),
        (Run("desk", "", "live"), 0x98EBD8972B69B47F),
        (Run("airline", "7ad146cf-324c-46e5-93c9-8fb281c7ab01", "live"), 0x7A4344BB6B3AE218),
        (Run("a_b-9", "x:y/z", "live"), 0xB3B0DC2F78E68917),
    ],
)
def test_a_draw_is_the_same_on_every_machine(run: Run, bits: int) -> None:
    # printf 'AGENT\0RUN' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f, its first 16 digits
    assert draw(bytes(range(32)), run) == (bits >> 11) / 2**53

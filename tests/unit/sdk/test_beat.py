"""When an instance reads the switch and reports next."""

import pytest

from midwatch.link import to_beat


@pytest.mark.parametrize("now", [1000.0, 1000.02, 1000.049, 1000.951, 1000.98])
def test_instances_that_began_at_different_moments_go_on_at_the_same(now: float) -> None:
    assert now + to_beat(1.0, now) == pytest.approx(1001.0 if now < 1000.5 else 1002.0)


def test_an_instance_keeps_its_pace_though_it_wakes_a_little_late() -> None:
    assert [to_beat(1.0, 1000.0), to_beat(1.0, 1000.003), to_beat(1.0, 999.998)] == pytest.approx([1.0, 0.997, 1.002])


def test_a_short_lease_is_not_moved() -> None:
    assert to_beat(0.02, 1000.049) == 0.02

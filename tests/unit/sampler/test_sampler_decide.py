"""A run is drawn by its name, the day's key and the rate, and by nothing else."""

import pytest

from midwatch_services.reviewer_sampler.decide import DayKey, Drawn, FirstSeen, PassedOver, Run, decide, draw, name_of
from midwatch_services.reviewer_sampler.policy import Policy
from midwatch_services.reviewer_sampler.recent import Recent

ZERO = bytes(32)


def first(run_id: str = "run-1", mode: str = "live", day: str = "2026-11-22") -> FirstSeen:
    return FirstSeen(name_of("desk", run_id, mode), mode, "T-1", day, 0.0)  # type: ignore[arg-type]


def test_a_draw_is_the_first_53_bits_of_the_hmac() -> None:
    # printf 'desk\0run-1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:00…00 gives d8479571b52b3027…
    assert draw(ZERO, Run("desk", "run-1", "live")) == (0xD8479571B52B3027 >> 11) / 2**53


def test_a_replay_is_drawn_by_a_name_of_its_own() -> None:
    # printf 'replay\0desk\0run-1' | openssl … gives 19235966d01de52d…
    assert draw(ZERO, Run("desk", "run-1", "replay")) == (0x19235966D01DE52D >> 11) / 2**53


def test_another_key_another_agent_and_another_run_each_draw_anew() -> None:
    values = {
        draw(ZERO, Run("desk", "run-1", "live")),
        draw(b"\1" * 32, Run("desk", "run-1", "live")),
        draw(ZERO, Run("desk2", "run-1", "live")),
        draw(ZERO, Run("desk", "run-2", "live")),
    }
    assert len(values) == 4


def test_agent_and_run_do_not_run_into_one_another() -> None:
    assert draw(ZERO, Run("ab", "c", "live")) != draw(ZERO, Run("a", "bc", "live"))


def test_a_draw_below_the_rate_is_drawn_and_one_at_it_is_not() -> None:
    value = draw(ZERO, Run("desk", "run-1", "live"))
    key = DayKey("2026-11-22", ZERO)
    above = decide(first(), Policy(value + 1e-9), key)
    at = decide(first(), Policy(value), key)
    assert isinstance(above, Drawn)
    assert isinstance(at, PassedOver)
    assert (above.draw, above.rate, above.key_hash) == (value, value + 1e-9, key.hash)


def test_the_hash_of_a_key_is_its_sha256() -> None:
    # head -c 32 /dev/zero | sha256sum
    assert DayKey("2026-11-22", ZERO).hash == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"


def test_what_the_run_does_does_not_change_its_draw() -> None:
    key = DayKey("2026-11-22", ZERO)
    one = decide(first(mode="live"), Policy(0.5), key)
    other = decide(FirstSeen(Run("desk", "run-1", "live"), "eval", None, "2026-11-22", 9e9), Policy(0.5), key)
    assert one.draw == other.draw
    assert type(one) is type(other)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 1000)])
def test_a_rate_of_nothing_draws_none_and_one_of_all_draws_all(rate: float, expected: int) -> None:
    key = DayKey("2026-11-22", ZERO)
    drawn = [isinstance(decide(first(f"run-{n}"), Policy(rate), key), Drawn) for n in range(1000)]
    assert sum(drawn) == expected


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5])
def test_over_many_runs_the_share_drawn_is_the_rate(rate: float) -> None:
    runs = 20_000
    key = DayKey("2026-11-22", bytes(range(32)))
    drawn = sum(isinstance(decide(first(f"run-{n}"), Policy(rate), key), Drawn) for n in range(runs))
    deviation = (rate * (1 - rate) / runs) ** 0.5
    assert abs(drawn / runs - rate) < 4 * deviation


def test_draws_spread_evenly() -> None:
    tenths = [0] * 10
    for n in range(10_000):
        tenths[int(draw(ZERO, Run("desk", f"run-{n}", "live")) * 10)] += 1
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert sum((count - 1000) ** 2 / 1000 for count in tenths) < 27.9


def test_an_id_with_a_nul_is_drawn_as_the_log_names_it() -> None:
    assert name_of("desk", "a\0b", "live") == Run("desk", "a\ufffdb", "live")
    assert name_of("desk", "a", "eval").track == "live"
    assert name_of("desk", "a", "replay").track == "replay"


def test_memory_keeps_the_runs_met_last_and_no_more_than_twice_its_limit() -> None:
    recent: Recent[int] = Recent(100)
    for n in range(1000):
        recent.add(n)
    assert all(n in recent for n in range(900, 1000))
    assert sum(n in recent for n in range(800)) == 0


def test_memory_keeps_a_run_that_goes_on() -> None:
    recent: Recent[int] = Recent(10)
    recent.add(-1)
    for n in range(100):
        recent.add(n)
        assert -1 in recent

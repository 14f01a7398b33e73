"""How many requests somebody may make: a bucket of tokens for each, which fills again. Pure, but for what it keeps."""

from dataclasses import dataclass, field

BURST = 10.0  # seconds' worth that may come at once
_KEPT = 10_000  # buckets; those that are full again are dropped first


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class Limits:
    """One bucket a name, each filled by `rate` tokens a second."""

    rate: float
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def wait(self, name: str, now: float) -> float:
        """Takes a token of `name`: 0 where there was one, else the seconds until there is."""
        most = max(1.0, self.rate * BURST)
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now, most)
            bucket = self._buckets[name] = _Bucket(most, now)
        bucket.tokens = min(most, bucket.tokens + max(0.0, now - bucket.at) * self.rate)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.rate
        bucket.tokens -= 1
        return 0.0

    def _make_room(self, now: float, most: float) -> None:
        if len(self._buckets) < _KEPT:
            return
        kept = {name: one for name, one in self._buckets.items() if one.tokens + (now - one.at) * self.rate < most}
        self._buckets = kept if len(kept) < _KEPT else {}

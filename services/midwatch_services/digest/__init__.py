"""Tells each morning, in plain sentences, what agents did the day before; emits `midwatch.digest.*.written`."""

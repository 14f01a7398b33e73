"""How a process that holds thousands of events at a time looks for garbage."""

import gc


def spare_collections() -> None:
    """Thousands of events are held at a time and none is garbage: with Python's own thresholds, looking through them,
    and through all that the service imported, takes an eighth of a reader's time."""
    gc.freeze()
    gc.set_threshold(max(20_000, gc.get_threshold()[0]), 20, 20)

"""What an event hashes to: fixed for ever by hand-made examples, and different for every difference."""

from hashlib import sha256

import pytest

from midwatch_services.logger.evidence.leaf import content_hash, leaf_hash

CONTENT = bytes(32)
COLUMNS = {
    "agent": "desk", "id": "e-1", "run_id": "r-1", "event": "said", "seq": 3,
    "time": "2026-11-22T12:00:00.000000Z", "stored_at": "2026-11-22T12:00:01.000000Z", "place": 17592186044417,
    "mode": "live", "version": "1", "content": CONTENT,
}  # fmt: skip


def test_a_leaf_is_the_hash_of_its_columns_as_json() -> None:
    text = (
        '[1,"desk","e-1","r-1","said",3,"2026-11-22T12:00:00.000000Z","2026-11-22T12:00:01.000000Z",17592186044417,'
        '"live","1","' + "0" * 64 + '"]'
    )
    assert leaf_hash(**COLUMNS) == sha256(b"\0" + text.encode()).digest()


@pytest.mark.parametrize("size", [0, 1, 2046, 2047, 2048, 4094, 16 * 1024, 16 * 1024 + 1, 300_000])
def test_the_content_is_hashed_with_its_salt(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert content_hash(b"salt", body) == sha256(b"salt" + body).digest()


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_in_the_leaf(column: str) -> None:
    value = COLUMNS[column]
    other = value + 1 if isinstance(value, int) else value[1:] if isinstance(value, bytes) else f"{value}x"
    assert leaf_hash(**COLUMNS | {column: other}) != leaf_hash(**COLUMNS)

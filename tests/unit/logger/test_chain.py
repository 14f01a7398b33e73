"""The tree of RFC 6962 and the chain of blocks: what they hash to, and what their checks name."""

from dataclasses import dataclass
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch_services.logger.evidence import chain, merkle
from midwatch_services.logger.evidence.chain import Block, Broken, Tail

# The test vectors of Certificate Transparency: these leaves, and the roots of the first n of them.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


@pytest.mark.parametrize("count", ROOTS)
def test_the_root_is_that_of_rfc_6962(count: int) -> None:
    assert merkle.root([leaf(bytes.fromhex(one)) for one in LEAVES[:count]]).hex() == ROOTS[count]


@given(st.integers(1, 70).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count - 1))))
def test_a_path_leads_to_the_root_from_its_own_leaf_only(of: tuple[int, int]) -> None:
    count, index = of
    leaves = [leaf(bytes([number])) for number in range(count)]
    path = merkle.path(leaves, index)
    assert merkle.root_by(leaves[index], index, count, path) == merkle.root(leaves)
    assert merkle.root_by(leaf(b"other"), index, count, path) != merkle.root(leaves)
    assert merkle.root_by(leaves[index], index, count, [*path, leaf(b"more")]) is None
    if path:
        assert merkle.root_by(leaves[index], index, count, path[:-1]) is None


@dataclass
class Chain:
    """Three blocks: two of events, one of an erasure."""

    blocks: list[Block]

    @classmethod
    def make(cls) -> "Chain":
        [one] = chain.cut("desk", chain.pack([(5, leaf(b"a")), (7, leaf(b"b"))]))
        [two] = chain.cut("desk", chain.pack([(9, leaf(b"c"))]))
        first = chain.append_part(Tail(), one, "2026-11-22T12:00:00.000000Z")
        note = chain.encode_note(chain.erasure_note("e-1", "2026-11-22T12:00:01.000000Z", "sam", [7]))
        second = chain.append_note(Tail(1, first.head), "desk", "erasure", note, "2026-11-22T12:00:01.000000Z")
        third = chain.append_part(Tail(2, second.head), two, "2026-11-22T12:00:02.000000Z")
        return cls([first, second, third])


def test_a_chain_as_it_was_made_is_whole() -> None:
    blocks = Chain.make().blocks
    assert list(chain.check(blocks)) == []
    assert [(b.number, b.kind, b.first_place, b.last_place, b.count) for b in blocks] == [
        (1, "events", 5, 7, 2), (2, "erasure", 0, 0, 0), (3, "events", 9, 9, 1),
    ]  # fmt: skip
    assert blocks[1].note == '{"at":"2026-11-22T12:00:01.000000Z","by":"sam","erasure":"e-1","places":[7]}'


def test_a_head_is_the_hash_of_its_header() -> None:
    block = Chain.make().blocks[0]
    header = f'[1,"desk",1,"events",5,7,2,"{block.root.hex()}","{"0" * 64}"]'
    assert block.head == sha256(b"\2" + header.encode()).digest()


@pytest.mark.parametrize(
    ("which", "change", "what"),
    [
        (0, {"count": 3}, "its head is not the hash of its header"),
        (0, {"leaves": chain.pack([(5, leaf(b"x")), (7, leaf(b"b"))])}, "its leaves were altered"),
        (0, {"leaves": chain.pack([(5, leaf(b"a"))])}, "it holds 1 leaves and says 2"),
        (
            0,
            {"leaves": chain.pack([(5, leaf(b"a")), (8, leaf(b"b"))])},
            "the places of its first and last leaf are not those that it says",
        ),
        (1, {"note": "{}"}, "its note was altered"),
        (1, {"kind": "removal"}, "its head is not the hash of its header"),
    ],
)
def test_an_altered_block_is_named(which: int, change: dict[str, object], what: str) -> None:
    blocks = Chain.make().blocks
    blocks[which] = msgspec.structs.replace(blocks[which], **change)
    assert next(chain.check(blocks)) == Broken("desk", which + 1, what)


def test_a_block_taken_out_is_named_by_the_one_after_it() -> None:
    first, _, third = Chain.make().blocks
    assert list(chain.check([first, third])) == [
        Broken("desk", 3, "it follows block 1: those between are missing"),
    ]


def test_many_leaves_make_many_blocks() -> None:
    parts = chain.cut("desk", chain.pack((place, leaf(b"x")) for place in range(1, 9001)))
    assert [len(part.leaves) // chain.ENTRY for part in parts] == [4096, 4096, 808]

"""The proof of one run, to be checked by anyone with nothing but it and the public key. Pure.

For each event: what its leaf is made of, the block that has it and the path from the leaf to the block's root; then the
headers of the blocks from there to one that a signed checkpoint names: a segment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from . import chain, checkpoints, merkle
from .chain import Block
from .checkpoints import Verifier
from .record import LEAF_COLUMNS, Record, examine, text

VERSION = 1
_HEADER = ("number", "kind", "first_place", "last_place", "count")


def of_event(row: Mapping[str, Any], record: Record, block: Block | None) -> dict[str, Any]:
    """The proof of one event; `block` is None while it is not sealed."""
    salt = row["salt"]
    proved: dict[str, Any] = {
        "agent": record.agent, **dict(zip(LEAF_COLUMNS, record.inputs, strict=True)), "place": record.place,
        "salt": bytes(salt).hex() if salt is not None else None, "body": text(row["body"]),
        "content": record.content.hex(), "leaf": record.leaf.hex(),
    }  # fmt: skip
    if block is not None:
        leaves = chain.hashes(block.leaves)
        index = [place for place, _ in chain.entries(block.leaves)].index(record.place)
        path = [one.hex() for one in merkle.path(leaves, index)]
        proved |= {"block": block.number, "index": index, "path": path}
    return proved


def header(block: Block) -> dict[str, Any]:
    """A block without its leaves: what its head is made of. A note stays, for it says what was done."""
    return {
        **{name: getattr(block, name) for name in _HEADER}, "root": block.root.hex(), "previous": block.previous.hex(),
        "head": block.head.hex(), "made_at": block.made_at, **({"note": block.note} if block.note else {}),
    }  # fmt: skip


def segment(headers: Iterable[Block], checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The headers of blocks that follow one another, and the checkpoint that names the last; None before it is made."""
    signed = msgspec.json.decode(checkpoints.line(checkpoint)) if checkpoint else None
    return {"headers": [header(block) for block in headers], "checkpoint": signed}


def check(dossier: Mapping[str, Any], keys: Verifier) -> list[str]:
    """What is wrong with a dossier, in sentences; nothing where it is whole."""
    proof = dossier.get("proof")
    if not isinstance(proof, Mapping) or proof.get("version") != VERSION:
        return [f"the dossier has no proof that this release can read (version {VERSION})"]
    try:
        return list(_check(dossier, proof, keys))
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
        return [f"the proof cannot be read: {error!r}"]


def _check(dossier: Mapping[str, Any], proof: Mapping[str, Any], keys: Verifier) -> Iterator[str]:
    agent = proof["agent"]
    headers: dict[int, Mapping[str, Any]] = {}
    for segment in proof["segments"]:
        checkpoint = segment["checkpoint"] and msgspec.convert(segment["checkpoint"], Checkpoint)
        yield from _check_headers(agent, segment["headers"], checkpoint, keys)
        headers |= {one["number"]: one for one in segment["headers"]}
    erased = _erased(headers.values())
    for one in proof["events"]:
        yield from _check_event(agent, proof["run_id"], one, headers, erased)
    yield from _check_told(dossier.get("events"), proof["events"])


def _check_headers(
    agent: str, headers: Sequence[Mapping[str, Any]], checkpoint: Checkpoint | None, keys: Verifier
) -> Iterator[str]:
    before = None
    for one in headers:
        name = f"block {one['number']} of {agent}"
        if chain.head_of(_block(agent, one)).hex() != one["head"]:
            yield f"{name} was altered: its head is not the hash of its header"
        if one["kind"] != "events" and chain.note_root(one.get("note", "")).hex() != one["root"]:
            yield f"{name} was altered: its note is not the one that was sealed"
        if before is not None and (one["number"], one["previous"]) != (before["number"] + 1, before["head"]):
            yield f"{name} does not follow block {before['number']}"
        before = one
    if checkpoint is None:
        yield "no checkpoint was signed yet that covers all of the run: make the dossier again in a minute"
    elif not checkpoints.is_signed(checkpoint, keys):
        why = "forged" if checkpoint.key in keys else f"signed with the key {checkpoint.key}, none of the given ones"
        yield f"checkpoint {checkpoint.number} is {why}"
    elif before is None or tuple(checkpoint.heads.get(agent, ())) != (before["number"], before["head"]):
        yield f"checkpoint {checkpoint.number} does not name the last of the blocks"


def _check_event(
    agent: str, run_id: str, one: Mapping[str, Any], headers: Mapping[int, Mapping[str, Any]], erased: Mapping[int, str]
) -> Iterator[str]:
    name = f"event {one['event']} {one['id']} (seq {one['seq']})"
    if (one["agent"], one["run_id"]) != (agent, run_id):
        yield f"{name} is of another run"
    salt = bytes.fromhex(one["salt"]) if one["salt"] is not None else None
    record = examine(
        {**one, "salt": salt, "leaf": bytes.fromhex(one["leaf"]), "ticket": None, "note": None, "month": "",
         "run_month": None}
    )  # fmt: skip
    if record.erased and erased.get(record.place) != record.erased:
        yield f"{name} was blanked, and no erasure in the proof lists it"
    if (record.content.hex(), record.leaf.hex()) != (one["content"], one["leaf"]):
        yield f"{name} was altered: it does not hash to its leaf"
    if "block" not in one:
        yield f"{name} is not sealed yet: make the dossier again in a minute"
        return
    block = headers[one["block"]]
    path = [bytes.fromhex(step) for step in one["path"]]
    root = merkle.root_by(record.leaf, one["index"], block["count"], path)
    if root is None or root.hex() != block["root"]:
        yield f"{name} is not in block {one['block']}: it was altered, or put in"


def _check_told(told: Any, proved: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Whether what the dossier tells is what is proved: each event's data, and none left out or put in."""
    if told is None:
        return
    said = {one["id"]: one for one in told}
    for one in proved:
        mine = said.pop(one["id"], None)
        body = msgspec.json.decode(one["body"])
        if mine is None:
            yield f"event {one['event']} {one['id']} is proved and not told"
        elif any(mine[name] != one[name] for name in ("event", "seq", "time", "stored_at") if name in mine):
            yield f"event {one['event']} {one['id']} is told otherwise than it is proved"
        elif "erased" in mine or "erased" in body:
            if mine.get("erased") != body.get("erased"):
                yield f"event {one['event']} {one['id']} is told with another content than it is proved"
        elif "data" in mine and mine["data"] != (body.get("data") or {}):
            yield f"event {one['event']} {one['id']} is told with another content than it is proved"
    for id in said:
        yield f"event {id} is told and not proved"


def _erased(headers: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for one in headers:
        if one["kind"] == "erasure":
            note = msgspec.json.decode(one["note"])
            found |= dict.fromkeys(note["places"], note["erasure"])
    return found


def _block(agent: str, one: Mapping[str, Any]) -> Block:
    return Block(
        agent, one["number"], one["kind"], one["first_place"], one["last_place"], one["count"], b"", "",
        bytes.fromhex(one["root"]), bytes.fromhex(one["previous"]), b"", "",
    )  # fmt: skip

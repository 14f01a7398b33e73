"""The scope card that users write: YAML in, a `Card` of the contract out, every mistake named with its place."""

from .load import CardErrors, Loaded, find, load, read
from .meaning import as_words, meaning, meaning_hash

__all__ = ["CardErrors", "Loaded", "as_words", "find", "load", "meaning", "meaning_hash", "read"]

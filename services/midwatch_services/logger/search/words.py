"""What counts as a word: the same for what is stored and what is asked, on every database. Pure."""

import re
from unicodedata import category, normalize

LONGEST = 64  # characters of one word; what is longer is cut, in texts as in questions

# Chinese and Japanese write no spaces: each sign is a word, and several of them a phrase.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_SIGNS}]|[^\\W_{_SIGNS}]+")


def words(text: str) -> list[str]:
    """The words of a text in order: letters and digits only, in lower case, without accents."""
    return [word[:LONGEST] for word in _WORD.findall(plain(text))]


def plain(text: str) -> str:
    """A text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    apart = normalize("NFKD", text.casefold())
    return normalize("NFC", "".join(sign for sign in apart if category(sign) != "Mn")).casefold()

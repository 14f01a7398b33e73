"""What customers wrote, as language and words; and names that agents made up, fit for a sentence."""

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from langdetect import DetectorFactory
from langdetect.detector_factory import PROFILES_DIRECTORY
from langdetect.lang_detect_exception import LangDetectException
from snowballstemmer import stemmer
from stop_words import AVAILABLE_LANGUAGES, LANGUAGE_MAPPING, get_stop_words

from .policy import POLICY

UNKNOWN = "unknown"
_WORD = re.compile(r"[^\W\d_]{3,30}")
_SPACES = re.compile(r"\s+")
_STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "fi": "finnish", "fr": "french", "hi": "hindi", "hu": "hungarian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
_NAMES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh-cn": "Chinese", "zh-tw": "Chinese",
}  # fmt: skip
# The library's English list is a search engine's: these of it are what a customer writes about.
_MEANT = {
    "bill", "bills", "computer", "copy", "error", "help", "information", "number", "order", "ordered", "ordering",
    "orders", "page", "problem", "problems", "reserved", "room", "rooms", "state", "stop", "system", "text", "value",
    "website", "work", "working", "works",
}  # fmt: skip
_STOPS_OF = {"no": "nb", "zh-cn": "zh", "zh-tw": "zh"}


@cache
def _detectors() -> Any:
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)  # the same text is always the same language
    return factory


def language(text: str) -> str:
    """The language's short name by ISO 639-1, or `unknown` where there is too little text to tell."""
    sample = text[: POLICY.language_sample]
    if sum(char.isalpha() for char in sample) < POLICY.language_least:
        return UNKNOWN
    detector = _detectors().create()
    detector.append(sample)
    try:
        found = detector.get_probabilities()
    except LangDetectException:
        return UNKNOWN
    return str(found[0].lang) if found and found[0].prob >= POLICY.language_sure else UNKNOWN


def language_name(short: str) -> str:
    """A language as people call it."""
    return _NAMES.get(short, short)


def words(text: str, of: str) -> dict[str, str]:
    """The stems of the words of a text in the language `of`, without stop words and numbers, each with the word as it
    was first written; a bounded number of them."""
    stops, found = _stops(of), dict[str, str]()
    for word in _WORD.findall(text[: POLICY.words_sample].lower()):
        if word not in stops:
            found.setdefault(_stem(word, of), word)
            if len(found) >= POLICY.words_most:
                break
    return found


@lru_cache(maxsize=20_000)
def _stem(word: str, of: str) -> str:
    algorithm = _STEMMERS.get(of)
    return str(_stemmer(algorithm).stemWord(word)) if algorithm else word


@cache
def _stemmer(algorithm: str) -> Any:
    return stemmer(algorithm)


@cache
def _stops(of: str) -> frozenset[str]:
    name = LANGUAGE_MAPPING.get(_STOPS_OF.get(of, of), of)
    return frozenset(get_stop_words(name)) - _MEANT if name in AVAILABLE_LANGUAGES else frozenset()


def joined(texts: Iterable[str]) -> str:
    """The texts as one, with no more space than there has to be."""
    return _SPACES.sub(" ", " ".join(texts)).strip()

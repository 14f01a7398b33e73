"""The kinds of personal data that are known by name: where each stands in a text. Exact, and pure.

Texts are given with plain digits, dashes and spaces (`letters.plain`).
"""

import re
from collections.abc import Iterator
from itertools import accumulate

Span = tuple[int, int]
_AT = re.compile(r"@|%40")
_LOCAL = re.compile(r"(?:\"[^\"\r\n]{1,64}\"|[\w.!#$%'*+^`{|}~-]{1,64})$")
_LOCAL_MOST = 66  # signs, with quotation marks
_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_](?:[^\W_]|-){0,61}[^\W_]|\[\d{1,3}(?:\.\d{1,3}){3}\]"
)
_EDGE = r"(?<![0-9A-Za-z])"
_NUMBERS = re.compile(_EDGE + r"\d(?:[ \t./-]{0,2}\d){12,}(?![0-9A-Za-z])")
_GROUP = re.compile(r"\d+")
_ISSUER = re.compile(r"2[2-7]|[3-9]")  # 0, 1 and 20 begin dates and ids, not the cards that people hold
_DOTTED_MOST = 6  # digits in a group that a dot parts from the one before
_CARD_DIGITS = range(13, 20)

# Country: characters of its IBAN, by the registry of SWIFT.
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
COUNTRIES = tuple(_IBAN_LENGTHS)
_PARTS = re.compile(r"[ .-]+")
_LETTERS = {ord(sign): str(int(sign, 36)) for sign in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_IBAN = re.compile(_EDGE + rf"(?:{'|'.join(COUNTRIES)})[0-9]{{2}}(?:[ .-]{{0,2}}[0-9A-Z]){{11,29}}", re.I)

# Not the headphones and smartphones of a shop, whose numbers are its own.
_HINT = (
    r"(?<![a-z])(?:(?:tele|cell|home|work)?phones?|mobile|whatsapp|telefon|telefax|fax|sms|tel|cell"
    r"|(?:call|text|reach) (?:me|us))(?![a-z])"
)
_WORDS = ("phone", "mobile", "whatsapp", "telefon", "fax", "sms", "tel", "cell", "call", "text", "reach")
# How numbers are written to be dialled, each with the sign without which there is none: searching costs more.
_DIALLED = (
    ("+", re.compile(_EDGE + r"\+[1-9](?:[ \t./()-]{0,3}\d){6,14}(?!\d)")),
    ("00", re.compile(_EDGE + r"00[1-9]\d{0,2}[ ./()-]{1,3}\d(?:[ ./()-]{0,3}\d){5,12}(?!\d)")),
    ("", re.compile(
        _EDGE + r"(?<!\d[./-])(?:1[ .-]{1,2})?(?:\(\d{3}\)[ .-]{0,2}|\d{3}[ ./-]{1,2})\d{3}[ .-]{1,2}\d{4}"
        r"(?![./-]?[0-9A-Za-z])"
    )),
    ("0", re.compile(_EDGE + r"(?<!\d[./:-])0\d(?:[ .-]\d\d){4}(?![./:-]?\d)")),
)  # fmt: skip
_TRUNKED = re.compile(_EDGE + r"(?<!\d[./:-])\(?0\d{1,5}\)?[ /-]{1,2}\d{2,8}(?:[ -]\d{2,5}){0,3}(?![./:-]?[0-9A-Za-z])")
_HINTED = re.compile(
    _HINT + r"""[^0-9\n"]{0,24}?(?:"[ ]?:[ ]?"?)?(?P<number>\+?\(?\d(?:[ \t./()-]{0,3}\d){6,14})(?![0-9A-Za-z])""", re.I
)
_HINTING = re.compile(_HINT + r"[^0-9]{0,20}\d{0,2}[^0-9]{0,3}$", re.I)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BARE = re.compile(r"\+?\(?\d(?:[ \t./()-]{0,3}\d){6,14}")
_DATE = re.compile(r"\(?\d{2}[./-]\d{2}[./-]\d{4}|\d{4}[./-]\d{2}[./-]\d{2}")
_TRUNK = range(9, 14)  # digits of a number that begins with the 0 of its own country


def email(text: str) -> Iterator[Span]:
    """Mail addresses, also with `%40` for the @ and with letters of any script."""
    last = 0
    for at in _AT.finditer(text):
        domain = _DOMAIN.match(text, at.end())
        begin = max(last, at.start() - _LOCAL_MOST)
        local = _LOCAL.search(text[begin : at.start()]) if domain else None
        if local and domain and at.start() >= last:
            yield begin + local.start(), domain.end()
            last = domain.end()


def card(text: str) -> Iterator[Span]:
    """Card numbers: 13 to 19 digits, in groups of any size, of an issuer's first digits, and valid by Luhn."""
    for run in _NUMBERS.finditer(text):
        groups = [found.span() for found in _GROUP.finditer(text, *run.span())]
        digits = "".join(text[start:end] for start, end in groups)
        starts = [0, *accumulate(end - start for start, end in groups)]
        sums = _sums(digits)
        place = 0
        while place < len(groups):
            last = _card_from(text, groups, place, digits, starts, sums)
            if last is not None:
                yield groups[place][0], groups[last][1]
                place = last
            place += 1


def _card_from(
    text: str, groups: list[Span], first: int, digits: str, starts: list[int], sums: tuple[list[int], list[int]]
) -> int | None:  # fmt: skip
    """The last group of the longest card number that begins with the group `first`."""
    begin, found = starts[first], None
    if not _ISSUER.match(digits, begin):
        return None
    for place in range(first, len(groups)):
        start, end = groups[place]
        if end - start > _DOTTED_MOST and text[start - 2 : start].endswith(".") and text[start - 2].isdigit():
            break  # the fraction of a decimal number
        stop = starts[place + 1]
        if stop - begin > _CARD_DIGITS[-1]:
            break
        if (
            stop - begin in _CARD_DIGITS
            and _is_luhn(sums, begin, stop)
            and digits[begin] * (stop - begin) != digits[begin:stop]
        ):
            found = place
    return found


def _sums(digits: str) -> tuple[list[int], list[int]]:
    """Luhn's sums up to each digit, with every even digit doubled and with every odd one: windows cost nothing then."""
    even, odd = [0], [0]
    for place, digit in enumerate(digits):
        plain = int(digit)
        doubled = 2 * plain - 9 * (plain > 4)
        even.append(even[-1] + (plain if place % 2 else doubled))
        odd.append(odd[-1] + (doubled if place % 2 else plain))
    return even, odd


def _is_luhn(sums: tuple[list[int], list[int]], begin: int, stop: int) -> bool:
    # The last digit is not doubled, the one before it is.
    of_parity = sums[stop % 2]
    return (of_parity[stop] - of_parity[begin]) % 10 == 0


def iban(text: str) -> Iterator[Span]:
    """IBANs of a country's own length whose check digits are right, in any grouping and case."""
    start = 0
    while found := _IBAN.search(text, start):
        end = _iban_end(text, found.start(), found.end())
        if end is None:
            start = found.start() + 2
            continue
        yield found.start(), end
        start = end


def _iban_end(text: str, start: int, limit: int) -> int | None:
    length = _IBAN_LENGTHS[text[start : start + 2].upper()]
    whole = _PARTS.sub("", text[start:limit]).upper()
    if len(whole) < length or int((whole[4:length] + whole[:4]).translate(_LETTERS)) % 97 != 1:
        return None
    end, left = start, length
    while left:
        left -= text[end] not in " .-"
        end += 1
    after = text[end : end + 1]
    return None if after.isascii() and after.isalnum() else end


def phone(text: str) -> Iterator[Span]:
    """Telephone numbers as they are written to be dialled, and any 7 to 15 digits after a word such as `phone`."""
    spans = [found.span() for sign, dialled in _DIALLED if sign in text for found in dialled.finditer(text)]
    for found in _TRUNKED.finditer(text) if "0" in text else ():
        if sum(sign.isdigit() for sign in found[0]) in _TRUNK and not _DATE.match(found[0]):
            spans.append(found.span())  # noqa: PERF401
    small = text.lower()
    for found in _HINTED.finditer(text) if any(word in small for word in _WORDS) else ():
        if not _DATE.match(found["number"]):
            spans.append(found.span("number"))  # noqa: PERF401
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            yield start, end
            last = end


def is_hint(key: str) -> bool:
    """Whether what stands under the key is a telephone number, if it is a number at all."""
    return _HINTING.search(_CAMEL.sub("_", key[-40:])) is not None


def is_number(text: str) -> bool:
    """Whether a text is nothing but 7 to 15 digits, as a telephone number may be written."""
    bare = text.strip()
    return len(bare) < 60 and _BARE.fullmatch(bare) is not None and not _DATE.fullmatch(bare)


FINDERS = {"email": email, "phone": phone, "card": card, "iban": iban}

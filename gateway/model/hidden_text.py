"""Characters that a person does not see and a model reads, found and spelled out; and names that look alike.

Source: Unicode's Default_Ignorable_Code_Point, UTS 51 (emoji), UTS 39 (what looks alike).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_HIDDEN = {
    "bidirectional mark": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "variation selector": "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef",
    "tag character": "\U000e0000-\U000e007f",
    "zero-width character": "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\u2800"
    "\u3164\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff",
    "control character": "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufff9-\ufffb",
}
"""What is not seen, by what it is: ranges of a character class."""
_ANY = re.compile(f"[{''.join(_HIDDEN.values())}]")
_SPELLED = re.compile(f"[{''.join(_HIDDEN.values())}\r]")
_KIND = {what: re.compile(f"[{ranges}]") for what, ranges in _HIDDEN.items()}
_JOINERS = "\u200c\u200d"
_EMOJI_SELECTORS = "\ufe0e\ufe0f"
_KEYCAP = "\u20e3"
_KEYCAPS = "#*0123456789"
_FLAGS = tuple(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in f"{each}\x7f")
    for each in ("gbeng", "gbsct", "gbwls")
)
"""The flags of England, Scotland and Wales, which are spelled in tags."""
_LIKE_ASCII = str.maketrans({"1": "l", "I": "l", "|": "l", "0": "o"})
_MAX_NAME = 256  # characters of a name that are looked at: some become many


def hidden(text: str, start: int = 0, end: int | None = None) -> tuple[int, str] | None:
    """Where the first hidden character between two places stands, and what it is; None for none.

    What scripts and emoji need is no such thing: a joiner between two letters that are not Latin or two pictures, the
    selector right after a picture, the flags that are spelled in tags.
    """
    for found in _ANY.finditer(text, start, len(text) if end is None else end):
        at = found.start()
        if not _is_needed(text, at):
            name = next(what for what, pattern in _KIND.items() if pattern.match(text, at))
            return at, f"{name} U+{ord(text[at]):04X}"
    return None


def _is_needed(text: str, at: int) -> bool:
    character = text[at]
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if character in _EMOJI_SELECTORS:
        return before != "" and (_is_picture(before) or (before in _KEYCAPS and after == _KEYCAP))
    if character in _JOINERS:
        if before in _EMOJI_SELECTORS and before:
            before = text[at - 2 : at - 1]
        return before != "" and after != "" and all(_is_picture(each) or _is_joined(each) for each in (before, after))
    if "\U000e0020" <= character <= "\U000e007f":
        start = text.rfind(_FLAGS[0][0], max(0, at - len(_FLAGS[0]) + 1), at)
        return start >= 0 and text.startswith(_FLAGS, start)
    return False


def _is_picture(character: str) -> bool:
    return unicodedata.category(character) in ("So", "Sm", "Sk") and not character.isascii()


def _is_joined(character: str) -> bool:
    """Whether it is of a script whose letters change where they are joined: Arabic to those of South Asia."""
    return "\u0600" <= character < "\u1100" and unicodedata.category(character)[0] in "LM"


def visible(text: str) -> str:
    """The same text with hidden characters spelled out; line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _SPELLED.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


def in_one_line(text: str) -> str:
    """The same text with hidden characters, line feeds and tabs spelled out: it can't pass for another line."""
    return visible(text).replace("\n", "<U+000A>").replace("\t", "<U+0009>")


@lru_cache(maxsize=16_384)  # the names of all servers, each looked at whenever one of them has news
def skeleton(name: str) -> str:
    """What a name looks like: names with the same skeleton can be taken for one another."""
    name = name[:_MAX_NAME]
    if not name.isascii():
        name = "".join(map(_like, unicodedata.normalize("NFKC", _ANY.sub("", name))[:_MAX_NAME]))
    return name.translate(_LIKE_ASCII).casefold().replace("rn", "m").replace("vv", "w")


@lru_cache(maxsize=4096)
def _like(character: str) -> str:
    """The ASCII character that one looks like, or itself."""
    if character.isascii():
        return character
    from confusable_homoglyphs.confusables import confusables_data  # 900 kB of tables, which odd names alone need

    for found in confusables_data.get(character, ()):
        if found["c"].isascii():
            return str(found["c"])
    bare = unicodedata.normalize("NFD", character)[0]
    return bare if bare.isascii() else character

"""Escape characters that are invisible or control a terminal."""

import unicodedata

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Escape control characters, lone surrogates and marks that change the direction of text.

    File names may contain terminal commands, or bytes that are not text. Tabs and line breaks
    stay as they are.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"
    if hidden or character in _REORDERING:
        return f"\\u{ord(character):04x}"
    return character

"""Text from anywhere, made fit to be shown: nothing in it moves a cursor or hides."""

import unicodedata

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Spell out the characters that cannot be seen or that turn the order of others around.

    A file's name may hold a terminal's commands, or bytes that are no text.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"
    if hidden or character in _REORDERING:
        return f"\\u{ord(character):04x}"
    return character

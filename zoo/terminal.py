"""Text from other people on a terminal: control characters are shown, not obeyed."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"  # between the parts of an emoji; harmless


def printable(text: object) -> str:
    """Text as one line in which every control, format and separator character is escaped, such as "\\x1b".

    That includes ESC and the C1 controls, carriage returns and line breaks, bidirectional overrides, zero-width
    characters, and the surrogates that stand for the bytes of a file name that is not UTF-8.
    """
    return "".join(c if c.isprintable() or c == _JOINER or _is_space(c) else _escape(c) for c in str(text))


def printable_lines(text: object) -> str:
    """Text with line breaks of our own, which are kept; everything else as in `printable`."""
    return "\n".join(map(printable, str(text).split("\n")))


def _is_space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"  # no-break and wide spaces are "not printable" to Python


def _escape(character: str) -> str:
    return ascii(character)[1:-1]

"""Stored text as people may look at it: what would steer a terminal is shown, never sent."""

from __future__ import annotations

import re

__all__ = ["STEERING", "one_line", "visible"]

# Control characters (tab and line feed aside), what turns the direction of text, the separators at which some
# programs end a line, and halves of characters, which no encoding holds.
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Text with each character that steers a terminal as its escape: ESC becomes the four characters ``\x1b``."""
    return STEERING.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str, width: int | None = None) -> str:
    """Text on one line, visible, cut to the width if one is given."""
    words = " ".join(visible(text).split())
    return words if width is None or len(words) <= width else words[: width - 1] + "…"


def _escape(character: re.Match[str]) -> str:
    code = ord(character[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

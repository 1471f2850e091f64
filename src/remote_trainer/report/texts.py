"""Texts of models and data, as a page shows them."""

MOST_CHARACTERS = 1500
_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_CONTROL[0x7F] = 0x2421


def shown(text: str) -> str:
    """At most `MOST_CHARACTERS`; control characters as their symbols, because HTML has no place for
    them (a browser drops NUL)."""
    cut = text[:MOST_CHARACTERS].replace("\r\n", "\n").translate(_CONTROL)
    if len(text) <= MOST_CHARACTERS:
        return cut
    return f"{cut}\N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)"

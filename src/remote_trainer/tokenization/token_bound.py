"""An upper bound on the tokens of a text, without tokenising it.

Every token of a byte-level BPE covers at least one byte, so a text of 400 bytes has at most 400
tokens. For nearly all of a million short prompts this bound shows that they are short enough.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

TokenBound = Callable[[str], int]
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece represents a space by this character."""
MOST_GROWTH_OF_NFC = 3
"""Maximum expansion of UTF-8 bytes by NFC (Unicode annex 15)."""
SPLITTERS = {"Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
"""Steps that split a text and add nothing."""


def token_bound(tokenizer: Any) -> TokenBound | None:
    """An upper bound on the tokens of a text, without special tokens of the post-processor; None
    for an unsupported tokenizer."""
    if type(tokenizer).__module__.partition(".")[0] not in ("transformers", "remote_trainer"):
        return None  # custom code may do anything
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return None
    parts = json.loads(core.to_str())
    growth = _growth_of_bytes(parts) or _growth_of_pieces(parts)
    if growth is None:
        return None
    factor, more = growth
    return lambda text: factor * len(text.encode("utf-8")) + more


def _growth_of_bytes(parts: Mapping[str, Any]) -> tuple[int, int] | None:
    """(tokens per byte, additional tokens) of a byte-level BPE."""
    model, steps = parts["model"], _steps(parts["pre_tokenizer"], "pretokenizers")
    levels = [step for step in steps if step["type"] == "ByteLevel"]
    others = {step["type"] for step in steps} - {"ByteLevel"}
    if model["type"] != "BPE" or model.get("byte_fallback") or len(levels) != 1:
        return None
    if levels[0].get("add_prefix_space") or not others <= SPLITTERS:
        return None
    normalizers = {step["type"] for step in _steps(parts["normalizer"], "normalizers")}
    if not normalizers:
        return 1, 0
    return (MOST_GROWTH_OF_NFC, 0) if normalizers == {"NFC"} else None


def _growth_of_pieces(parts: Mapping[str, Any]) -> tuple[int, int] | None:
    """The same for a BPE over characters with byte fallback.

    A space is prepended to each piece between added tokens. That gives at most one token more than
    bytes, because an added token of two or more bytes is a single token.
    """
    model, steps = parts["model"], _steps(parts["normalizer"], "normalizers")
    if model["type"] != "BPE" or SPACE not in model["vocab"]:
        return None
    if any(len(token["content"].encode("utf-8")) < 2 for token in parts["added_tokens"]):
        return None
    if not {step["type"] for step in _steps(parts["pre_tokenizer"], "pretokenizers")} <= SPLITTERS:
        return None
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    in_front = {"type": "Prepend", "prepend": SPACE}
    return (1, 1) if steps and all(step in (blanks, in_front) for step in steps) else None


def _steps(part: Mapping[str, Any] | None, inner: str) -> list[Any]:
    """The steps of a part of a tokenizer, which is a sequence or a single step."""
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]

"""The most tokens that a text can have, known without tokenising it.

Every token of a byte-level BPE stands for one byte of the text or more, so a text of 400 bytes has
no more than 400. Of a million short prompts nearly all are known to be short enough by that alone.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

TokenBound = Callable[[str], int]
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece writes a blank as this character."""
MOST_GROWTH_OF_NFC = 3
"""Bytes of UTF-8 that one byte can become, by the Unicode standard (annex 15)."""
SPLITTERS = {"Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
"""Steps that cut a text in pieces and add nothing."""


def token_bound(tokenizer: Any) -> TokenBound | None:
    """An upper bound on the tokens of a text, special tokens of the post-processor left out; None
    for a tokenizer of which none is known."""
    if type(tokenizer).__module__.partition(".")[0] not in ("transformers", "remote_trainer"):
        return None  # code of a model's authors may do anything
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
    """(tokens a byte, tokens besides) of a byte-level BPE."""
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
    """The same of a BPE over characters, whose unknown ones fall back to bytes.

    A blank is put in front of each piece between added tokens. That makes one token more than there
    are bytes, because an added token of two bytes or more is one token itself.
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
    """The steps of a part of a tokenizer, whether it is a sequence or a single one."""
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]

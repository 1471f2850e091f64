"""A SmolLM2 tokenizer from the metadata of its GGUF file.

The tokenizer that transformers derives from this file ends turns with the wrong token, has no pad
token, and splits digits and white space differently than in the model's training.
"""

from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from remote_trainer.errors import DownloadError

_BOS, _EOS, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


def build_smollm_tokenizer(gguf_file: Path) -> PreTrainedTokenizerFast:
    """Build it; raises DownloadError if the file is not the expected one."""
    metadata = _Metadata(gguf_file)
    flavour = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if flavour != ("gpt2", "smollm"):
        raise DownloadError(f"{gguf_file.name}: tokenizer {flavour} is not SmolLM2's")
    tokens = metadata["tokenizer.ggml.tokens"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(metadata, tokens),
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_PAD,
        # The file pads with <|im_end|>, which would hide the end of a turn.
        pad_token=_PAD,
        model_max_length=int(metadata["llama.context_length"]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = metadata["tokenizer.chat_template"]
    if len(tokenizer) != len(tokens):
        raise DownloadError(
            f"{gguf_file.name}: {len(tokens)} tokens expected, but the tokenizer has "
            f"{len(tokenizer)}"
        )
    return tokenizer


def _byte_level_bpe(metadata: "_Metadata", tokens: list[str]) -> Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == gguf.TokenType.CONTROL
        ]
    )
    return tokenizer


class _Metadata:
    """Fields of a GGUF header by name."""

    def __init__(self, gguf_file: Path) -> None:
        self._name = gguf_file.name
        self._fields = gguf.GGUFReader(str(gguf_file)).fields

    def __getitem__(self, key: str) -> Any:
        if key not in self._fields:
            raise DownloadError(f"{self._name}: the header has no field {key!r}")
        return self._fields[key].contents()

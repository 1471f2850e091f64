"""A tokenizer for checking data without torch or transformers: same ids, loads in a second.

Reads ``tokenizer.json`` with the tokenizers library and renders the chat template with
`chat_template`. Tests compare both with transformers.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from remote_trainer.errors import UserInputError
from remote_trainer.json_files import require_file
from remote_trainer.tokenization.chat_template import (
    DEFAULT,
    ChatTemplate,
    choose,
    compiled,
    read_json,
    template_files,
)
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

MOST_BYTES = 2**28
"""More than the largest tokenizer in use (34 MB)."""
_NAMED = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# The published files of GPT-2 define no special tokens; its tokenizer class does.
_GPT2_CLASS = ("GPT2Tokenizer", "GPT2TokenizerFast")
_GPT2_TYPES = ("codegen", "gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2")
_GPT2_TOKENS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")


def light_codec(folder: Path, chat_template_kwargs: Mapping[str, Any]) -> PromptTokenizer | None:
    """The tokenizer of the model, or None if the folder has no ``tokenizer.json``."""
    if not os.path.lexists(folder / "tokenizer.json"):
        return None
    return PromptTokenizer(LightTokenizer(folder), chat_template_kwargs=chat_template_kwargs)


class LightTokenizer:
    """The parts of a Hugging Face tokenizer's interface that `PromptTokenizer` uses."""

    def __init__(self, folder: Path) -> None:
        self.name_or_path = str(folder)
        self._file = folder / "tokenizer.json"
        self._tokenizer = _core(self._file)
        # The file may contain truncation and padding settings, which must not apply to prompts.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special_tokens_map = _special_tokens(folder)
        self.bos_token_id = self._id_of("bos_token")
        self.eos_token_id = self._id_of("eos_token")
        self.pad_token_id = self._id_of("pad_token")
        self.chat_template = _chat_template(folder)

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        with _faults_told(self._file):
            if isinstance(text, str):
                ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
                return {"input_ids": ids}
            batch = self._tokenizer.encode_batch_fast(text, add_special_tokens=add_special_tokens)
            return {"input_ids": [encoding.ids for encoding in batch]}

    def get_vocab(self) -> dict[str, int]:
        return dict(self._tokenizer.get_vocab())

    def added_tokens(self) -> frozenset[str]:
        """Tokens that are matched literally in any text."""
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token.content for token in added.values())

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        with _faults_told(self._file):
            return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self,
        messages: Any,
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> str:
        assert not tokenize, "PromptTokenizer encodes rendered text itself"
        template = choose(self.chat_template, chat_template, tools)
        assert template is not None, "PromptTokenizer renders only with a template"
        return compiled(template).render(
            messages=messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            **{**self.special_tokens_map, **kwargs},
        )

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizers object, under its name in transformers."""
        return self._tokenizer

    def _id_of(self, name: str) -> int | None:
        text = self.special_tokens_map.get(name)
        return None if text is None else self._tokenizer.token_to_id(text)


def _core(path: Path) -> Tokenizer:
    with _faults_told(path):
        require_file(path)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        return Tokenizer.from_file(str(path))


@contextmanager
def _faults_told(path: Path) -> Iterator[None]:
    """Errors of the library become a UserInputError at the file of the tokenizer.

    It raises no type narrower than Exception. Where its own code fails on a file, it panics, which
    is not even an Exception.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserInputError.at(
            str(path), f"contains no valid tokenizer ({error}); download the model again"
        ) from error


def _chat_template(folder: Path) -> ChatTemplate | None:
    sources = {name: each.source for name, each in template_files(folder).items()}
    return sources[DEFAULT] if set(sources) == {DEFAULT} else sources or None


def _special_tokens(folder: Path) -> dict[str, str]:
    """Every named special token; templates use these names."""
    settings = dict(read_json(folder / "tokenizer_config.json"))
    if "added_tokens_decoder" not in settings:
        settings |= read_json(folder / "special_tokens_map.json")  # the older format
    settings = {**_class_tokens(folder, settings), **settings}
    extra = settings.pop("extra_special_tokens", None)
    if isinstance(extra, dict):
        settings |= extra
    named = {
        name: _token_text(value)
        for name, value in settings.items()
        if name in _NAMED or name.endswith("_token") or (isinstance(extra, dict) and name in extra)
    }
    return {name: text for name, text in named.items() if text is not None}


def _class_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens of the tokenizer class, unless a file defines them."""
    if "tokenizer_class" in settings:
        is_gpt2 = settings["tokenizer_class"] in _GPT2_CLASS
    else:
        is_gpt2 = read_json(folder / "config.json").get("model_type") in _GPT2_TYPES
    return _GPT2_TOKENS if is_gpt2 else {}


def _token_text(value: Any) -> str | None:
    """Special tokens are given as text or as an object with ``content``."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None

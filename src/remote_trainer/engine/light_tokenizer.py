"""A tokenizer for checking data without torch or transformers: same ids, a second to load.

Reads ``tokenizer.json`` with the tokenizers library and renders the chat template in the kind of
sandbox transformers uses. A test holds both against each other.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from remote_trainer.engine.codec import Codec


def light_codec(folder: Path, chat_template_kwargs: Mapping[str, Any]) -> Codec | None:
    """The model's codec, or None if the folder has no ``tokenizer.json``."""
    if not (folder / "tokenizer.json").exists():
        return None
    return Codec(_LightTokenizer(folder), chat_template_kwargs=chat_template_kwargs)


class _LightTokenizer:
    """The few parts of a Hugging Face tokenizer's interface that `Codec` uses."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = _read_json(folder / "tokenizer_config.json")
        self._tokens = {
            f"{role}_token": _token_text(settings.get(f"{role}_token"))
            for role in ("bos", "eos", "pad", "unk")
        }
        self.bos_token_id = self._id_of("bos_token")
        self.eos_token_id = self._id_of("eos_token")
        self.pad_token_id = self._id_of("pad_token")
        self.chat_template = _chat_template(folder, settings)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {
            "input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        }

    def get_vocab(self) -> dict[str, int]:
        return dict(self._tokenizer.get_vocab())

    def added_tokens(self) -> frozenset[str]:
        """Tokens that stand for themselves wherever a text holds them."""
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token.content for token in added.values())

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self, messages: Any, *, tokenize: bool, add_generation_prompt: bool, **kwargs: Any
    ) -> str:
        assert not tokenize, "the codec encodes rendered text itself"
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        special = {name: text for name, text in self._tokens.items() if text is not None}
        return environment.from_string(self.chat_template or "").render(
            messages=messages, add_generation_prompt=add_generation_prompt, **special, **kwargs
        )

    def _id_of(self, name: str) -> int | None:
        text = self._tokens[name]
        return None if text is None else self._tokenizer.token_to_id(text)


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    own_file = folder / "chat_template.jinja"
    if own_file.exists():
        return own_file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _token_text(value: Any) -> str | None:
    """Special tokens stand as text or as an object with ``content``."""
    return value.get("content") if isinstance(value, dict) else value


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)

"""Encodes and decodes text in the same way everywhere, with any Hugging Face tokenizer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remote_trainer.final_answer import THINKING_TAGS
from remote_trainer.records import EncodedRow, Prompt, Row, Thinking, TokenIds
from remote_trainer.tokenization.chat_template import choose, file_of
from remote_trainer.tokenization.template_refusal import FaultyTemplate, TemplateRefusal, refusal_of

__all__ = ["FaultyTemplate", "PromptTokenizer", "TemplateRefusal", "Tools"]

Tools = Sequence[Mapping[str, Any]]
"""JSON schemas of the tools of a prompt."""


class PromptTokenizer:
    """A tokenizer with the rules of this project: render once, keep ids.

    ``eos_ids`` are all ids that end a completion, from tokenizer and model.
    """

    def __init__(
        self,
        tokenizer: Any,
        eos_ids: Iterable[int] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        own = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self.eos_ids: TokenIds = tuple(dict.fromkeys([*own, *eos_ids]))
        self._bos_id = _added_bos(tokenizer)
        self._thinking_ids = _thinking_ids(tokenizer)

    @property
    def pad_id(self) -> int:
        """Id for padding; always masked, so end-of-sequence works if there is no pad token."""
        if self.tokenizer.pad_token_id is not None:
            return int(self.tokenizer.pad_token_id)
        return self.eos_ids[0] if self.eos_ids else 0

    @property
    def has_chat_template(self) -> bool:
        """Whether message lists can be rendered."""
        return bool(self._template(None))

    def encode(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        """Ids of literal text; with ``special_tokens``, including those the tokenizer adds."""
        return tuple(self.tokenizer(text, add_special_tokens=special_tokens)["input_ids"])

    def encode_prompt(self, prompt: Prompt, tools: Tools | None = None) -> TokenIds:
        """Ids of a prompt: literal text with one BOS, or messages rendered by the chat template.

        Raises TemplateRefusal, as `prompt_text` does.
        """
        return self._with_bos(prompt, self.encode(self.prompt_text(prompt, tools)))

    def encode_row(self, row: Row) -> EncodedRow:
        """A data row with its prompt rendered and tokenised; raises as `encode_prompt` does."""
        text = self.prompt_text(row.prompt, row.tools)
        return EncodedRow(row, self._with_bos(row.prompt, self.encode(text)), text)

    def encode_prompts(
        self, prompts: Sequence[Prompt], tools: Sequence[Tools | None] | None = None
    ) -> list[TokenIds | TemplateRefusal]:
        """`encode_prompt` of each prompt, tokenised in one call; ``tools`` has an entry per prompt.

        A refused prompt has its refusal instead of ids, so that all of them can be reported.
        Raises FaultyTemplate if the template is invalid.
        """
        texts = [
            self._text_or_refusal(prompt, given)
            for prompt, given in zip(prompts, tools or [None] * len(prompts), strict=True)
        ]
        rendered = [text for text in texts if isinstance(text, str)]
        ids = iter(
            self.tokenizer(rendered, add_special_tokens=False)["input_ids"] if rendered else ()
        )
        return [
            self._with_bos(prompt, tuple(next(ids))) if isinstance(text, str) else text
            for prompt, text in zip(prompts, texts, strict=True)
        ]

    def prompt_text(
        self, prompt: Prompt, tools: Tools | None = None, add_generation_prompt: bool = True
    ) -> str:
        """The text of a prompt; messages are rendered with the generation prompt, unless
        ``add_generation_prompt`` is off.

        Raises TemplateRefusal if the chat template refuses them, and its subclass FaultyTemplate
        if the template is invalid.
        """
        if isinstance(prompt, str):
            return prompt
        options = self.chat_template_kwargs
        if tools is not None:
            options = {**options, "tools": [dict(tool) for tool in tools]}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    prompt,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **options,
                )
            )
        except Exception as error:
            folder = str(getattr(self.tokenizer, "name_or_path", ""))
            refusal = refusal_of(error, file_of(folder, self._template(tools) or ""))
            if refusal is None:
                raise
            raise refusal from error

    def _text_or_refusal(self, prompt: Prompt, tools: Tools | None) -> str | TemplateRefusal:
        try:
            return self.prompt_text(prompt, tools)
        except FaultyTemplate:
            raise
        except TemplateRefusal as refusal:
            return refusal

    def _template(self, tools: Tools | None) -> str | None:
        """The text of the chat template that renders a prompt with these tools."""
        templates = getattr(self.tokenizer, "chat_template", None)
        return choose(templates, self.chat_template_kwargs.get("chat_template"), tools)

    def _with_bos(self, prompt: Prompt, ids: TokenIds) -> TokenIds:
        """Prepends the BOS to literal text if the tokenizer does so for texts."""
        if isinstance(prompt, str) and self._bos_id is not None and ids[:1] != (self._bos_id,):
            return (self._bos_id, *ids)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def without_eos(self, ids: TokenIds) -> TokenIds:
        """``ids`` without end-of-sequence ids at the end."""
        end = len(ids)
        while end and ids[end - 1] in self.eos_ids:
            end -= 1
        return ids[:end]

    def thinking(self, prompt_ids: TokenIds, content_ids: TokenIds) -> Thinking:
        """The end of the thinking block of a completion, for models that mark it with tokens.

        A block that prompt or completion leave open must be closed before text is appended.
        """
        if self._thinking_ids is None:
            return Thinking()
        opening, closing = self._thinking_ids
        in_prompt = _is_open(prompt_ids, opening, closing)
        if not in_prompt and opening not in content_ids and closing not in content_ids:
            return Thinking()
        close = (*self.encode("\n"), closing, *self.encode("\n\n"))
        still_open = _is_open(prompt_ids + content_ids, opening, closing)
        length = len(content_ids) if still_open else _after(content_ids, closing)
        return Thinking(
            length=length,
            answer_text=self.decode(content_ids[length:]),
            close_prompt=close if in_prompt else (),
            close=close if still_open else (),
        )


def _thinking_ids(tokenizer: Any) -> tuple[int, int] | None:
    """Ids that open and close a thinking block, if the tokenizer has a token for each."""
    vocabulary = tokenizer.get_vocab()
    for opening, closing in THINKING_TAGS:
        if opening in vocabulary and closing in vocabulary:
            return vocabulary[opening], vocabulary[closing]
    return None


def _is_open(ids: TokenIds, opening: int, closing: int) -> bool:
    return _after(ids, opening) > _after(ids, closing)


def _after(ids: TokenIds, token: int) -> int:
    """Index after the last ``token``; 0 if there is none."""
    return len(ids) - ids[::-1].index(token) if token in ids else 0


def _added_bos(tokenizer: Any) -> int | None:
    """The BOS id if the tokenizer prepends it to plain text."""
    bos_id = tokenizer.bos_token_id
    if bos_id is None:
        return None
    return int(bos_id) if list(tokenizer("a")["input_ids"])[:1] == [bos_id] else None

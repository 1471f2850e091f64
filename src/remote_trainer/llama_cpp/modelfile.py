"""The Modelfile of a GGUF, for `ollama create`.

Ollama renders conversations with Go templates (its docs/template.md), not with the Jinja template
in the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_trainer.tokenization.chat_template import DEFAULT, template_files
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.turns import NoTurns, Turns, turns_of

_HEAD = "# For `ollama create NAME -f Modelfile`; docs/exports.md of remote_trainer says more.\n"
_QUOTE = '"""'
_IF_SYSTEM, _SYSTEM = "{{ if .System }}", "{{ .System }}"
_EACH = "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
_IF_USER, _ELSE_IF_ASSISTANT = '{{ if eq $m.Role "user" }}', '{{ else if eq $m.Role "assistant" }}'
_CONTENT, _IF_LAST, _IF_NOT_LAST = "{{ $m.Content }}", "{{ if $last }}", "{{ if not $last }}"
_ELSE, _END = "{{ else }}", "{{ end }}"


def modelfile(
    gguf: Path, tokenizer: Path, options: Mapping[str, Any], system_prompt: str | None
) -> str:
    """The text for a GGUF in the same folder.

    ``tokenizer``: a folder with the tokenizer; ``options``: data.chat_template_kwargs. TEMPLATE is
    left out, with the reason, where the chat template cannot be written in Ollama's language.
    """
    lines = [_HEAD + f"FROM ./{gguf.name}"]
    try:
        turns = _turns(tokenizer, options, _bos_added(gguf))
        lines.append(f"TEMPLATE {_quoted(go_template(turns))}")
        lines += [f'PARAMETER stop "{stop}"' for stop in _stops(turns, tokenizer)]
    except NoTurns as error:
        lines.append(f"# No TEMPLATE, so Ollama looks for one of its own: {_one_line(str(error))}.")
    if system_prompt:
        try:
            lines.append(f"SYSTEM {_quoted(system_prompt)}")
        except NoTurns as error:
            lines.append(f"# No SYSTEM: {error}. Pass data.system_prompt with each request.")
    return "\n".join(lines) + "\n"


def go_template(turns: Turns) -> str:
    """In the language of Go's text/template, over Ollama's ``.System`` and ``.Messages``.

    Ollama merges messages in a row of the same role, so user and assistant take turns. A last
    message of the assistant is continued.
    """
    start = turns.start
    if turns.system is not None:
        before, after = turns.system
        start = f"{_IF_SYSTEM}{before}{_SYSTEM}{after}{_ELSE}{turns.start}{_END}"
    user = f"{_CONTENT}{_IF_LAST}{turns.end}{_ELSE}{turns.to_assistant}{_END}"
    assistant = f"{_CONTENT}{_IF_NOT_LAST}{turns.to_user}{_END}"
    return f"{start}{_EACH}{_IF_USER}{user}{_ELSE_IF_ASSISTANT}{assistant}{_END}{_END}"


def _turns(folder: Path, options: Mapping[str, Any], without_bos: bool) -> Turns:
    """The fixed texts; without the beginning-of-text token that llama.cpp adds."""
    tokenizer = light_codec(folder, options)
    if tokenizer is None:
        raise NoTurns("the model has no tokenizer.json")
    template = template_files(folder).get(DEFAULT)
    if template is not None and "strftime_now" in template.source:
        raise NoTurns("the chat template writes the date of the day")
    found = turns_of(tokenizer)
    texts = [found.start, *(found.system or ()), found.to_assistant, found.to_user, found.end]
    if any("{{" in text or _QUOTE in text for text in texts):
        raise NoTurns("the chat template writes {{ or three quotation marks")
    bos = tokenizer.tokenizer.special_tokens_map.get("bos_token", "")
    if not without_bos or not bos:
        return found
    before, after = found.system or ("", "")
    system = (before.removeprefix(bos), after) if found.system else None
    start = found.start.removeprefix(bos)
    return Turns(start, system, found.to_assistant, found.to_user, found.end)


def _bos_added(gguf: Path) -> bool:
    """Whether llama.cpp adds a beginning-of-text token to every prompt."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    added = fields.get("tokenizer.ggml.add_bos_token")
    if added is not None:
        return bool(added.contents())
    kind = fields.get("tokenizer.ggml.model")
    return kind is not None and kind.contents() == "llama"  # SentencePiece, where it is usual


def _stops(turns: Turns, folder: Path) -> list[str]:
    """The token that ends an answer in a conversation, and the tokenizer's end of text."""
    tokenizer = light_codec(folder, {})
    assert tokenizer is not None, "it rendered the turns"
    special = sorted(tokenizer.tokenizer.added_tokens(), key=len, reverse=True)
    after = turns.to_user.lstrip()
    first = next((token for token in special if token and after.startswith(token)), None)
    own = tokenizer.tokenizer.special_tokens_map.get("eos_token")
    return [stop for stop in dict.fromkeys([first, own]) if stop and '"' not in stop]


def _quoted(text: str) -> str:
    """A Modelfile has no escapes. Raises NoTurns."""
    if _QUOTE in text or text.endswith('"'):
        raise NoTurns("the text holds three quotation marks or ends with one")
    return f"{_QUOTE}{text}{_QUOTE}"


def _one_line(text: str) -> str:
    return " ".join(text.split())

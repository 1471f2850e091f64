"""The Modelfile: what its template renders is what the model's own chat template renders."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import make_model, make_tokenizer
from go_templates import Message, modelfile_commands, ollama_renders

from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.llama_cpp.modelfile import go_template, modelfile
from remote_trainer.llama_cpp.server import LlamaServer
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer
from remote_trainer.tokenization.turns import NoTurns, Turns, turns_of

TEMPLATES = Path(__file__).parents[2] / "chat_templates"
CONVERSATION = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": 'What is "2 + 3"?\n\nSay {it}.'},
    {"role": "assistant", "content": "Five <b>."},
    {"role": "user", "content": "And 3 + 4?"},
]


def with_template(folder: Path, name: str, target: Path) -> Path:
    """A copy of a tiny model with another chat template."""
    shutil.copytree(folder, target)
    shutil.copy(TEMPLATES / f"{name}.jinja", target / "chat_template.jinja")
    return target


def tokenizer_of(folder: Path) -> PromptTokenizer:
    tokenizer = light_codec(folder, {})
    assert tokenizer is not None
    return tokenizer


def conversations(with_system: bool) -> list[list[Message]]:
    """With and without a system message, with one turn and with two."""
    found = [CONVERSATION[1:2], CONVERSATION[1:]]
    return [*found, CONVERSATION[:2], CONVERSATION] if with_system else found


def test_a_template_by_hand() -> None:
    turns = Turns("<s>U:", ("<s>S:", "|U:"), "|A:", "|U:", "|A:")
    template = go_template(turns)
    assert template == (
        "{{ if .System }}<s>S:{{ .System }}|U:{{ else }}<s>U:{{ end }}"
        "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq $m.Role "user" }}{{ $m.Content }}{{ if $last }}|A:{{ else }}|A:{{ end }}'
        '{{ else if eq $m.Role "assistant" }}{{ $m.Content }}{{ if not $last }}|U:{{ end }}'
        "{{ end }}{{ end }}"
    )
    rendered = ollama_renders(template, CONVERSATION)
    first = 'What is "2 + 3"?\n\nSay {it}.'
    assert rendered == f"<s>S:Answer briefly.|U:{first}|A:Five <b>.|U:And 3 + 4?|A:"
    assert ollama_renders(template, CONVERSATION[1:3]) == f"<s>U:{first}|A:Five <b>."


FOUND = {
    "chatml": True, "gemma2": False, "gemma3": True, "llama2": True, "llama3_1": True,
    "olmo2": True, "phi3": True, "qwen2_5": True, "qwen3": True,
    "zephyr": True,
}  # fmt: skip
"""Chat template -> whether it takes a system message."""


@pytest.mark.parametrize("name", sorted(FOUND))
def test_known_templates(llama_folder: Path, tmp_path: Path, name: str) -> None:
    tokenizer = tokenizer_of(with_template(llama_folder, name, tmp_path / "model"))
    turns = turns_of(tokenizer)
    assert (turns.system is not None) == FOUND[name]
    for messages in conversations(FOUND[name]):
        wanted = tokenizer.prompt_text(messages)
        assert ollama_renders(go_template(turns), messages) == wanted


def test_a_system_message_that_moves_with_the_last_question(
    llama_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(with_template(llama_folder, "mistral_v0_3", tmp_path / "model"))
    with pytest.raises(NoTurns, match="does more than"):
        turns_of(tokenizer)


def test_chatml_by_hand(llama_folder: Path, tmp_path: Path) -> None:
    turns = turns_of(tokenizer_of(with_template(llama_folder, "chatml", tmp_path / "model")))
    assert turns == Turns(
        start="<|im_start|>user\n",
        system=("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"),
        to_assistant="<|im_end|>\n<|im_start|>assistant\n",
        to_user="<|im_end|>\n<|im_start|>user\n",
        end="<|im_end|>\n<|im_start|>assistant\n",
    )


REFUSED = {
    "{{ messages[0].content | upper }}": "leaves out or repeats a user message",
    "{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}": "does more than",
    "{{ messages[-1].content }}": "leaves out or repeats a user message",
    "{{ raise_exception('no') }}": "refuses a conversation: .*no",
    "": "has no chat template",
}


@pytest.mark.parametrize("template", REFUSED)
def test_templates_that_do_more(llama_folder: Path, template: str) -> None:
    tokenizer = tokenizer_of(llama_folder)
    tokenizer.tokenizer.chat_template = template or None
    with pytest.raises(NoTurns, match=REFUSED[template]):
        turns_of(tokenizer)


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no-bos"])
def tiny(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a tokenizer that adds a BOS, and with one that adds none."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = make_tokenizer(adds_bos=request.param)
    make_model("llama", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Not llama3_1: transformers writes the date of its template, llama.cpp that of today.
@pytest.mark.parametrize("name", ["own", "chatml", "gemma2"])
def test_llama_cpp_renders_and_reads_the_same(
    tiny: Path, toy_gguf: Path, tmp_path: Path, name: str
) -> None:
    """Its rendering of the file's own template, and the ids of the Modelfile's with the BOS that it
    adds to every prompt."""
    folder = tiny if name == "own" else with_template(tiny, name, tmp_path / "model")
    file = tmp_path / "model-f32.gguf"
    gguf.convert(folder, file, "f32")
    commands = modelfile_commands(modelfile(file, folder, {}, 'Say "yes".\nOr no'))
    assert commands["FROM"] == ["./model-f32.gguf"]
    assert commands["SYSTEM"] == ['Say "yes".\nOr no']
    server, tokenizer = LlamaServer(file, 256), tokenizer_of(folder)
    for messages in conversations(name != "gemma2"):
        rendered = ollama_renders(commands["TEMPLATE"][0], messages)
        own = server.post("/apply-template", {"messages": messages})["prompt"]
        assert own.removeprefix("<s>") == rendered.removeprefix("<s>")
        body = {"content": rendered, "add_special": True, "parse_special": True}
        added = tokenizer.encode("", special_tokens=True)
        wanted = tokenizer.encode_prompt(messages)
        if wanted[: len(added)] != added:  # the chat template writes none
            wanted = added + wanted
        assert tuple(server.post("/tokenize", body)["tokens"]) == wanted


def written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> str:
    """A Modelfile without a GGUF at hand."""
    monkeypatch.setattr("remote_trainer.llama_cpp.modelfile._bos_added", lambda file: False)
    return modelfile(tmp_path / "model-q8_0.gguf", folder, {}, given.get("system_prompt"))


def test_stops_are_the_end_of_a_turn_and_of_a_text(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = modelfile_commands(written(llama_folder, tmp_path, monkeypatch))
    assert commands["PARAMETER stop"] == ["</s>"]
    assert "SYSTEM" not in commands


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ strftime_now('%d') }}{{ messages[0].content }}", "writes the date of the day"),
        ("{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}", "writes {{ or three"),
        ("{{ raise_exception('two\nlines') }}", "two lines"),
    ],
)
def test_without_a_template_the_reason_is_there(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    (folder / "chat_template.jinja").write_text(template)
    text = written(folder, tmp_path, monkeypatch)
    assert list(modelfile_commands(text)) == ["FROM"]
    (line,) = (line for line in text.splitlines() if line.startswith("# No TEMPLATE"))
    assert words in line


def test_a_system_prompt_that_cannot_be_quoted_is_left_out(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written(llama_folder, tmp_path, monkeypatch, system_prompt='Say "no"')
    assert "SYSTEM" not in modelfile_commands(text)
    assert "# No SYSTEM: the text holds three quotation marks or ends with one" in text

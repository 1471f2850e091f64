"""The light renderer against transformers', on every template at hand; and what a template sees."""

import ast
import json
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tokenizer
from jinja2.sandbox import ImmutableSandboxedEnvironment

from remote_trainer.errors import UserInputError
from remote_trainer.tokenization.chat_template import compiled, template_files
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import (
    FaultyTemplate,
    PromptTokenizer,
    TemplateRefusal,
)

SYSTEM = {"role": "system", "content": "Be short."}
USER = {"role": "user", "content": "Capital of France?"}
PARIS = {"role": "assistant", "content": "Paris."}
THOUGHT = {"role": "assistant", "content": "<think>\nIt is Paris.\n</think>\n\nParis."}
REASONED = {**PARIS, "reasoning_content": "It is Paris.", "thinking": "It is Paris."}
ODD = " \tÄ 東京 🚀\r\n\n{{ x }} {% if %} <b>&amp;</b> \"quoted\" 'too' \\n </s> \u00a0\u2028 "
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a place <now> & later: 東京",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            },
            "required": ["place"],
        },
        "return": {"type": "string"},
    },
}
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": {"place": "東京", "days": [1, 2]}},
}
CALLED: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": '{"C": 21}'},
]
TALKS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None, dict[str, Any]]] = {
    "system and user": ([SYSTEM, USER], None, {}),
    "user": ([USER], None, {}),
    "two turns": ([SYSTEM, USER, PARIS, USER], None, {}),
    "assistant first": ([PARIS, USER], None, {}),
    "two user turns": ([USER, USER], None, {}),
    "assistant last": ([USER, PARIS], None, {}),
    "odd characters": ([{"role": "user", "content": ODD}], None, {}),
    "empty content": ([{"role": "system", "content": ""}, {**USER, "content": ""}], None, {}),
    "unknown role": ([{"role": "critic", "content": "Hm."}, USER], None, {}),
    "content in parts": ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], None, {}),
    "no content": ([USER, {"role": "assistant", "content": None}, USER], None, {}),
    "tools": ([SYSTEM, USER], [TOOL], {}),
    "no tools at all": ([USER], [], {}),
    "a tool called": (CALLED, [TOOL, TOOL], {}),
    "thought": ([USER, THOUGHT, USER], None, {}),
    "reasoned": ([USER, REASONED, USER, REASONED], None, {}),
    "thinking off": ([SYSTEM, USER], None, {"enable_thinking": False, "thinking": False}),
    "thinking on": ([USER, THOUGHT, USER], None, {"enable_thinking": True, "thinking": True}),
    "documents": ([USER], None, {"documents": [{"title": "Ü", "text": "<text> & more"}]}),
    "options": (
        [SYSTEM, USER],
        None,
        {"date_string": "1 Jan 2026", "reasoning_effort": "high", "builtin_tools": ["python"]}
        | {"custom_tools": [TOOL], "xml_tools": [TOOL], "bos_token": "<other>"},
    ),
}
OWN = sorted((Path(__file__).parents[2] / "chat_templates").glob("*.jinja"))


def package_folder(name: str) -> Path:
    spec = find_spec(name)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


SHIPPED = [
    *package_folder("trl").rglob("*.jinja"),
    *package_folder("transformers").rglob("*.jinja"),
]


def inside_modules(package: str) -> Iterator[tuple[str, str]]:
    """(module, template) of each template that stands as a text in a package's own code."""
    for path in sorted(package_folder(package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "{%" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            text = getattr(node, "value", None)
            if isinstance(node, ast.Constant) and isinstance(text, str) and " in messages" in text:
                yield path.name, text


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptTokenizer, PromptTokenizer]:
    """transformers' tokenizer and ours."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(adds_bos=True).save_pretrained(folder)
    light = light_codec(folder, {})
    assert light
    return real_codec(folder), light


def real_codec(folder: Path) -> PromptTokenizer:
    from transformers import AutoTokenizer

    return PromptTokenizer(AutoTokenizer.from_pretrained(folder))


def outcome(prompt_tokenizer: PromptTokenizer, source: str, talk: str) -> Any:
    """The text, or how it was refused."""
    messages, tools, options = TALKS[talk]
    prompt_tokenizer.tokenizer.chat_template, prompt_tokenizer.chat_template_kwargs = (
        source,
        options,
    )
    try:
        return prompt_tokenizer.prompt_text(messages, tools)
    except TemplateRefusal as refusal:
        return type(refusal), refusal.reason, refusal.line, refusal.deliberate


def compare(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer], source: str, name: str
) -> list[Any]:
    found = []
    for talk in TALKS:
        theirs, ours = (outcome(prompt_tokenizer, source, talk) for prompt_tokenizer in tokenizers)
        assert ours == theirs, f"{name}: {talk}"
        found.append(theirs)
    return found


def test_there_are_templates_to_compare() -> None:
    assert len(SHIPPED) >= 60
    assert len(OWN) >= 10
    assert sum("generation" in path.read_text() for path in SHIPPED) >= 20


@pytest.mark.parametrize("path", [*sorted(SHIPPED), *OWN], ids=lambda path: path.stem)
def test_a_template_renders_as_in_transformers(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer], path: Path
) -> None:
    found = compare(tokenizers, path.read_text(encoding="utf-8"), path.name)
    assert sum(isinstance(each, str) for each in found) >= 3


def test_templates_inside_the_packages_code_do_so_too(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer],
) -> None:
    found = {
        name: source for each in ("transformers", "trl") for name, source in inside_modules(each)
    }
    rendered = [compare(tokenizers, source, name) for name, source in found.items()]
    assert sum(isinstance(each, str) for talk in rendered for each in talk) >= len(TALKS)


ASKED_CHATML = (
    "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nCapital of France?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
BY_HAND = {
    "llama2": "<s>[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nCapital of France? [/INST]",
    "llama3_1": "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
    "2023\nToday Date: 26 Jul 2024\n\nBe short.<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nCapital of France?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral_v0_3": "<s>[INST] Be short.\n\nCapital of France?[/INST]",
    "gemma3": "<s><start_of_turn>user\nBe short.\n\nCapital of France?<end_of_turn>\n"
    "<start_of_turn>model\n",
    "phi3": "<|system|>\nBe short.<|end|>\n<|user|>\nCapital of France?<|end|>\n<|assistant|>\n",
    "phi4_reasoning": "<|im_start|>system<|im_sep|>Think first. Be short.<|im_end|><|im_start|>user"
    "<|im_sep|>Capital of France?<|im_end|><|im_start|>assistant<|im_sep|>",
    "qwen2_5": ASKED_CHATML,
    "qwen3": ASKED_CHATML,
    "chatml": ASKED_CHATML,
    "deepseek_r1": "<s>Be short.<｜User｜>Capital of France?<｜Assistant｜><think>\n",  # noqa: RUF001
    "zephyr": "<|system|>\nBe short.</s>\n<|user|>\nCapital of France?</s>\n<|assistant|>\n",
    "olmo2": "<s><|system|>\nBe short.\n<|user|>\nCapital of France?\n<|assistant|>\n",
    "smollm3": "<|im_start|>system\n## Metadata\n\nToday Date: {today}\nReasoning Mode: /think\n\n"
    "## Custom Instructions\n\nBe short.\n\n<|im_end|>\n<|im_start|>user\nCapital of France?"
    "<|im_end|>\n<|im_start|>assistant\n",
    "gemma2": (TemplateRefusal, "System role not supported", 1, True),
}


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_known_prompts(tokenizers: tuple[PromptTokenizer, PromptTokenizer], path: Path) -> None:
    wanted = BY_HAND[path.stem]
    if isinstance(wanted, str):
        wanted = wanted.replace("{today}", datetime.now().strftime("%d %B %Y"))
    assert outcome(tokenizers[1], path.read_text(encoding="utf-8"), "system and user") == wanted


SEEN = (
    "{{ bos_token }} {{ eos_token }} {{ unk_token }} {{ pad_token }} {{ image_token }} "
    "{{ audio_token }} {{ tool_token }} {{ fake_token_around }} {{ extra_special_tokens }} "
    "{{ additional_special_tokens }} {{ tools is none }} {{ documents is none }}"
)


@pytest.mark.parametrize("with_decoder", [False, True])
def test_a_template_sees_every_named_special_token(tmp_path: Path, with_decoder: bool) -> None:
    make_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = {"content": "<|system|>", "lstrip": False, "normalized": False, "rstrip": False}
    config |= {
        "image_token": "<|user|>",
        "audio_token": {"__type": "AddedToken", **added, "single_word": False},
        "extra_special_tokens": {"tool_token": "<|assistant|>", "fake_token_around": "</s>"},
    }
    if with_decoder:
        config["added_tokens_decoder"] = {"0": {**added, "content": "<pad>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    # An old file; it counts only where the config does not list the added tokens.
    old = {"unk_token": "<pad>", "bos_token": {**added, "content": "</s>", "single_word": False}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(old))
    (tmp_path / "chat_template.jinja").write_text(SEEN)
    light = light_codec(tmp_path, {})
    assert light
    text = light.prompt_text([USER])
    assert text == real_codec(tmp_path).prompt_text([USER])
    bos, unk = ("<s>", "") if with_decoder else ("</s>", "<pad>")
    assert text == (f"{bos} </s> {unk} <pad> <|user|> <|system|> <|assistant|> </s>   True True")


@pytest.mark.parametrize(
    ("config", "model_type", "wanted"),
    [
        ({}, "gpt2", "<|endoftext|>"),
        ({"model_max_length": 1024}, "opt", "<|endoftext|>"),
        ({"tokenizer_class": "GPT2TokenizerFast"}, "llama", "<|endoftext|>"),
        ({"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>"}, "gpt2", "</s>"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "gpt2", None),
        ({}, "llama", None),
    ],
)
def test_tokens_that_only_the_class_of_a_tokenizer_knows(
    tmp_path: Path, config: dict[str, Any], model_type: str, wanted: str | None
) -> None:
    make_tokenizer(adds_bos=False).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    light = light_codec(tmp_path, {})
    assert light
    assert light.tokenizer.special_tokens_map == real_codec(tmp_path).tokenizer.special_tokens_map
    assert light.tokenizer.special_tokens_map.get("eos_token") == wanted


def named(folder: Path) -> list[Any]:
    """By both: whether there is a template, and the texts without tools, with tools, by name."""
    prompt_tokenizer = light_codec(folder, {})
    assert prompt_tokenizer
    found = []
    for each in (real_codec(folder), prompt_tokenizer):
        texts: list[Any] = [each.has_chat_template]
        for tools, options in ((None, {}), ([TOOL], {}), (None, {"chat_template": "rag"})):
            each.chat_template_kwargs = options
            texts.append(each.prompt_text([USER], tools))
        found.append(tuple(texts))
    return found


def test_several_templates_in_the_config(tmp_path: Path) -> None:
    make_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [
        {"name": "default", "template": "D"},
        {"name": "tool_use", "template": "T"},
        {"name": "rag", "template": "R"},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert named(tmp_path) == [(True, "D", "T", "R")] * 2


def test_files_of_their_own_win_over_the_config(tmp_path: Path) -> None:
    make_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = "from the config"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    # Only processors of images and the like read this one.
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    (tmp_path / "chat_template.jinja").write_text("D\r\n")
    assert named(tmp_path) == [(True, "D", "D", "rag")] * 2
    (tmp_path / "additional_chat_templates").mkdir()
    for name in ("tool_use", "rag"):
        (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(name)
    assert named(tmp_path) == [(True, "D", "tool_use", "rag")] * 2


def test_a_template_is_compiled_once(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled.cache_clear()
    count: list[str] = []
    real = ImmutableSandboxedEnvironment.from_string

    def from_string(self: Any, source: str) -> Any:
        count.append(source)
        return real(self, source)

    monkeypatch.setattr(ImmutableSandboxedEnvironment, "from_string", from_string)
    light = tokenizers[1]
    light.tokenizer.chat_template, light.chat_template_kwargs = "{{ messages[0].content }}", {}
    assert light.encode_prompts([[USER]] * 50) == [light.encode(USER["content"])] * 50
    assert count == ["{{ messages[0].content }}"]


def test_a_batch_has_the_ids_of_its_prompts_and_is_one_call(tiny_folder: Path) -> None:
    prompts: list[Any] = ["Name a fruit. ", "", "<s>Name é 🚀", [SYSTEM, USER], [USER]]
    tools = [None, None, None, [TOOL], None]
    light = light_codec(tiny_folder, {})
    assert light
    for prompt_tokenizer in (real_codec(tiny_folder), light):
        one_by_one = [
            prompt_tokenizer.encode_prompt(p, t) for p, t in zip(prompts, tools, strict=True)
        ]
        called: list[Any] = []
        tokenizer = prompt_tokenizer.tokenizer

        class Counted:
            def __call__(self, *given: Any, _own: Any = tokenizer, **more: Any) -> Any:
                called.append(given)  # noqa: B023
                return _own(*given, **more)

            def __getattr__(self, name: str, _own: Any = tokenizer) -> Any:
                return getattr(_own, name)

        prompt_tokenizer.tokenizer = Counted()
        assert prompt_tokenizer.encode_prompts(prompts, tools) == one_by_one
        assert len(called) == 1
        assert prompt_tokenizer.encode_prompts([]) == []


def test_what_a_tokenizer_file_says_of_cutting_and_padding_is_ignored(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """As by transformers: some files keep the settings of whoever wrote them."""
    from tokenizers import Tokenizer

    core = Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    core.enable_truncation(4)
    core.enable_padding(length=32)
    core.save(str(tmp_path / "tokenizer.json"))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    light = light_codec(tmp_path, {})
    assert light
    prompts: list[Any] = [[USER], "Name a fruit. An apple is a fruit.", "a"]
    assert light.encode_prompts(prompts) == real_codec(tiny_folder).encode_prompts(prompts)


FUSSY = "{% if messages | length > 1 %}\n{{ raise_exception('One message,\nplease') }}{% endif %}x"


def test_refused_prompts_do_not_hide_the_others(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer],
) -> None:
    for prompt_tokenizer in tokenizers:
        prompt_tokenizer.tokenizer.chat_template, prompt_tokenizer.chat_template_kwargs = FUSSY, {}
        good, bad, text = prompt_tokenizer.encode_prompts([[USER], [SYSTEM, USER], "plain"])
        assert good == prompt_tokenizer.encode("x")
        assert text == prompt_tokenizer.encode_prompt("plain")
        assert isinstance(bad, TemplateRefusal)
        assert (bad.reason, bad.line, bad.deliberate) == ("One message, please", 2, True)
        assert "'One message, please'" in str(bad)
        assert not isinstance(bad, FaultyTemplate)


@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        ("a\n{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute", 2),
        ("{{ nothing.at_all }}", "UndefinedError: 'nothing' is undefined", 1),
        ("\n\n{{ 'a' + messages[0].number }}", "TypeError: can only concatenate str", 3),
        ("{% macro m() %}\n{{ 1 // 0 }}{% endmacro %}{{ m() }}", "ZeroDivisionError", 2),
        ("{{ messages.append(1) }}", "SecurityError", 1),
    ],
)
def test_a_template_that_fails_says_where(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer], source: str, words: str, line: int
) -> None:
    for prompt_tokenizer in tokenizers:
        prompt_tokenizer.tokenizer.chat_template, prompt_tokenizer.chat_template_kwargs = source, {}
        message: Any = {**USER, "number": 1}
        with pytest.raises(TemplateRefusal) as caught:
            prompt_tokenizer.encode_prompt([message])
        assert caught.value.reason.startswith(words)
        assert (caught.value.line, caught.value.deliberate) == (line, False)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json (chat_template)"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{% unknown %}", "Encountered unknown tag 'unknown'."),
        ("\n{{ messages | nonsense }}", "No filter named 'nonsense'."),
        ("x\n{% if messages %}", "Unexpected end of template"),
    ],
)
def test_a_faulty_template_is_named(tmp_path: Path, file: str, source: str, words: str) -> None:
    make_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(source)
    if file != "chat_template.jinja":
        (tmp_path / "chat_template.jinja").unlink()
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        config["chat_template"] = source
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for prompt_tokenizer in (light_codec(tmp_path, {}), real_codec(tmp_path)):
        assert prompt_tokenizer
        with pytest.raises(FaultyTemplate) as caught:
            prompt_tokenizer.encode_prompts(["plain", [USER]])
        assert caught.value.where == f"{tmp_path / file}:2"
        assert caught.value.reason.startswith(words)


@pytest.mark.parametrize(
    "source", ["{{ " + 300 * "[" + 300 * "]" + " }}", "{{ messages" + 400 * ".x" + " }}"]
)
def test_a_template_too_deep_for_the_compiler_is_named(tmp_path: Path, source: str) -> None:
    make_tokenizer(adds_bos=True).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(source)
    for prompt_tokenizer in (light_codec(tmp_path, {}), real_codec(tmp_path)):
        assert prompt_tokenizer
        with pytest.raises(FaultyTemplate, match="nested too deeply to be compiled") as caught:
            prompt_tokenizer.encode_prompts([[USER]])
        assert caught.value.where == str(tmp_path / "chat_template.jinja")


def test_an_error_from_elsewhere_is_no_refusal(
    tokenizers: tuple[PromptTokenizer, PromptTokenizer],
) -> None:
    class Broken:
        chat_template = "x"

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizers[1].tokenizer, name)

        def __call__(self, *given: Any, **more: Any) -> Any:
            return tokenizers[1].tokenizer(*given, **more)

        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            raise RuntimeError("our own mistake")

    with pytest.raises(RuntimeError, match="our own mistake"):
        PromptTokenizer(Broken()).prompt_text([USER])


@pytest.mark.parametrize("written", [3, ["a"], [{"name": 1}], {"default": None}, {"a": ["b"]}])
def test_a_template_that_is_no_text_is_named(written: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": written}))
    with pytest.raises(UserInputError, match=r"\(chat_template\): is neither a text nor texts by"):
        template_files(tmp_path)

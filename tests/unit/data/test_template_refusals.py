"""Rows that the chat template refuses: told with file and line, its own words and a way out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.data.jsonl import SHOWN_PROBLEMS
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.chat import open_chat
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.evaluate import evaluate_model
from remote_trainer.pipeline.score import score_file
from remote_trainer.pipeline.train import run

Write = Callable[[str, str | bytes], Path]

TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 is even) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}<|assistant|>"
)
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + TURNS
)
USER, SYSTEM, PARIS = (
    {"role": "user", "content": "Capital of France?"},
    {"role": "system", "content": "Be short."},
    {"role": "assistant", "content": "Paris."},
)
SYSTEM_OUT = "remove the system message, or write its text into the user's message"
IN_TURNS = "begin with a user turn and alternate user and assistant"


def model_with(template: str, folder: Path, llama: Path) -> Path:
    shutil.copytree(llama, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture
def strict(llama_folder: Path, tmp_path: Path) -> Path:
    return model_with(STRICT, tmp_path / "strict", llama_folder)


def config_for(model: Path, rows: Path, **data: Any) -> RunConfig:
    settings = {
        "model": {"name": str(model)},
        "lora": {"r": 4, "target_modules": ["q_proj"]},
        "data": {"train": str(rows), "eval": "none", **data},
        "reward": {"type": "inverse_loss", "truncated": "score"},
        "training": {
            "num_generations": 2, "gradient_accumulation_steps": 1, "max_prompt_length": 128,
            "max_completion_length": 4, "max_steps": 1,
        },
        "output_dir": str(rows.parent / "run"),
    }  # fmt: skip
    return parse_config(json.dumps(settings), "c")


def lines(*prompts: Any) -> str:
    return "".join(json.dumps({"prompt": prompt, "answer": "Paris"}) + "\n" for prompt in prompts)


def told(call: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(UserInputError) as caught:
        call()
    return [(problem.where, problem.message) for problem in caught.value.problems]


def test_every_refused_row_is_told_with_what_to_do(strict: Path, write: Write) -> None:
    talks = [[SYSTEM, USER], [USER], [PARIS, USER], "text", [USER, USER], [SYSTEM, USER, USER]]
    rows = write("rows.jsonl", lines(*talks))
    config = config_for(strict, rows)
    for call in (lambda: check_config(config), lambda: run(config, "")):
        found = told(call)
        assert [where for where, _ in found] == [f"{rows}:{line}" for line in (1, 3, 5, 6)]
        first, third, fifth, sixth = (message for _, message in found)
        assert first == (
            f"the model's chat template refuses it: 'System role not supported'; {SYSTEM_OUT}"
        )
        for message in (third, fifth):
            assert "'Conversation roles must alternate user/assistant'" in message
            assert IN_TURNS in message
            assert SYSTEM_OUT not in message
        assert SYSTEM_OUT in sixth
        assert IN_TURNS in sixth


def test_the_advice_is_what_the_template_takes_whatever_it_says(
    llama_folder: Path, tmp_path: Path, write: Write
) -> None:
    """This one has no system role either, and complains of turns."""
    model = model_with(TURNS, tmp_path / "turns", llama_folder)
    rows = write("rows.jsonl", lines([SYSTEM, USER]))
    ((_, message),) = told(lambda: check_config(config_for(model, rows)))
    assert "'Conversation roles must alternate user/assistant'" in message
    assert message.endswith(SYSTEM_OUT)


def test_a_refused_system_prompt_is_the_configs_problem_and_told_once(
    strict: Path, write: Write
) -> None:
    rows = write("rows.jsonl", lines("a", "b", [PARIS, USER], "c"))
    config = config_for(strict, rows, system_prompt="Be short.", eval=str(rows))
    (first, message), *others = told(lambda: check_config(config))
    assert first == "data.system_prompt"
    assert message == (
        "'Be short.': the model's chat template refuses it: 'System role not supported'; remove "
        "data.system_prompt, or write its text into the user's messages"
    )
    # The row that would be refused without it, too, is told for what it does itself.
    assert {where for where, _ in others} == {f"{rows}:3"}
    assert all(IN_TURNS in message for _, message in others)


def test_many_refused_rows_are_shortened(strict: Path, write: Write) -> None:
    rows = write("rows.jsonl", lines(*[[SYSTEM, USER]] * 70))
    found = told(lambda: check_config(config_for(strict, rows)))
    assert len(found) == SHOWN_PROBLEMS + 1
    assert found[-1] == (str(rows), "and 50 more lines that the chat template refuses")


def test_a_refusal_without_a_way_out_still_says_something(
    llama_folder: Path, tmp_path: Path, write: Write
) -> None:
    model = model_with("{{ 1 + messages[0].content }}", tmp_path / "broken", llama_folder)
    rows = write("rows.jsonl", lines("a"))
    ((where, message),) = told(lambda: check_config(config_for(model, rows)))
    assert where == f"{rows}:1"
    assert f"fails on it ({model / 'chat_template.jinja'}:1): TypeError" in message
    assert message.endswith("or choose another model")


def test_a_faulty_template_is_told_once_at_its_own_line(
    llama_folder: Path, tmp_path: Path, write: Write
) -> None:
    model = model_with("fine\n{% oops %}", tmp_path / "faulty", llama_folder)
    rows = write("rows.jsonl", lines("a", "b", "c"))
    config = config_for(model, rows, eval=str(rows))
    wanted = [
        (
            f"{model / 'chat_template.jinja'}:2",
            "the model's chat template is invalid: Encountered unknown tag 'oops'.; fix it or "
            "choose another model",
        )
    ]
    assert told(lambda: check_config(config)) == wanted
    assert told(lambda: run(config, "")) == wanted
    assert told(lambda: evaluate_model(str(model), rows, False, None)) == wanted
    assert told(lambda: open_chat(str(model), False)) == wanted


def test_a_template_with_generation_tags_trains(
    llama_folder: Path, tmp_path: Path, write: Write
) -> None:
    template = (
        "{% if tools is not none %}{{ tools[0] }}{% endif %}{% for m in messages %}"
        "{% generation %}<|{{ m.role }}|>{{ m.content }}</s>{% endgeneration %}{% endfor %}"
    )
    model = model_with(template, tmp_path / "tags", llama_folder)
    rows = write("rows.jsonl", lines("a", "b"))
    config = config_for(model, rows)
    plan = check_config(config)
    run(config, "")
    told_by_train = json.loads((rows.parent / "run" / "data_report.json").read_text())
    assert plan.report
    assert plan.report["train"] == told_by_train["train"]


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    for module in ("score", "evaluate", "chat"):
        monkeypatch.setattr(f"remote_trainer.pipeline.{module}.load_backend", load)


@pytest.mark.parametrize("light", [True, False])
def test_score_and_eval_tell_of_refused_rows(
    strict: Path, write: Write, monkeypatch: pytest.MonkeyPatch, light: bool
) -> None:
    """Before the model is loaded where its tokenizer can be read without, and else after that."""
    if light:
        forbid_loading(monkeypatch)
    else:
        for module in ("score", "evaluate"):
            monkeypatch.setattr(f"remote_trainer.pipeline.{module}.light_codec", lambda *_: None)
    rows = write("rows.jsonl", lines([USER], [SYSTEM, USER]))
    judged = [{"prompt": talk, "completion": "Paris"} for talk in ([USER], [PARIS, USER])]
    pairs = write("pairs.jsonl", "".join(json.dumps(pair) + "\n" for pair in judged))
    ((where, message),) = told(lambda: evaluate_model(str(strict), rows, False, None))
    assert where == f"{rows}:2"
    assert "System role not supported" in message
    ((where, message),) = told(
        lambda: score_file(config_for(strict, rows), pairs, pairs.parent / "out.jsonl")
    )
    assert where == f"{pairs}:2"
    assert IN_TURNS in message
    config = config_for(strict, rows, system_prompt="Be short.")
    found = told(lambda: score_file(config, pairs, pairs.parent / "out.jsonl"))
    assert [where for where, _ in found] == ["data.system_prompt", f"{pairs}:2"]


def test_score_tells_of_messages_for_a_model_without_a_template(
    llama_folder: Path, tmp_path: Path, write: Write
) -> None:
    shutil.copytree(llama_folder, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    pairs = write("pairs.jsonl", json.dumps({"prompt": [USER], "completion": "Paris"}))
    config = config_for(tmp_path / "base", pairs)
    ((where, message),) = told(lambda: score_file(config, pairs, tmp_path / "out.jsonl"))
    assert where == f"{pairs}:1"
    assert "no chat template" in message


def test_a_chat_is_refused_before_the_model_is_loaded(
    strict: Path, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    forbid_loading(monkeypatch)
    model = model_with("{{ raise_exception('not today') }}", tmp_path / "never", llama_folder)
    assert told(lambda: open_chat(str(model), False)) == [
        (
            str(model),
            "the model's chat template refuses it: 'not today'; choose another model",
        )
    ]
    config = config_for(strict, write("rows.jsonl", lines("a")), system_prompt="Be short.")
    monkeypatch.setattr("remote_trainer.pipeline.chat.config_of", lambda *_: config)
    ((where, message),) = told(lambda: open_chat(str(strict), False))
    assert where == "data.system_prompt"
    assert "System role not supported" in message


@pytest.mark.parametrize("option", ["tokenize", "add_generation_prompt", "return_tensors"])
def test_options_of_rendering_are_no_options_of_a_template(option: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    ((_, message),) = told(lambda: config_for(tmp_path, rows, chat_template_kwargs={option: True}))
    assert message.startswith("data: chat_template_kwargs: ")
    assert f"{option} is not a template option" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b'{"version": "1.0", ', "contains no valid tokenizer"),
        ("tokenizer_config.json", b"{", "not a JSON object"),
        ("tokenizer_config.json", b"[]x", "not a JSON object"),
        ("tokenizer_config.json", b'{"eos_token": "\\ud800"}', "surrogates not allowed"),
        ("tokenizer.json", b"[" * 100_000, "contains no valid tokenizer"),
        ("chat_template.jinja", b"caf\xe9", "not UTF-8 at byte 4"),
    ],
)
def test_broken_files_of_a_tokenizer_are_named(
    strict: Path, write: Write, name: str, content: bytes, message: str
) -> None:
    (strict / name).write_bytes(content)
    rows = write("rows.jsonl", lines("a"))
    found = told(lambda: check_config(config_for(strict, rows)))
    assert [where for where, _ in found] == [str(strict / name)]
    assert message in found[0][1]
    assert "download the model again" in found[0][1]

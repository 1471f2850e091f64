"""Talking to a model: what is said is what the model would generate, and mistakes are explained."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.cli.chat import talk
from remote_trainer.engines.chat_model import (
    BackendChatModel,
    GgufChatModel,
    MessageTooLong,
    fitting,
)
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.pipeline.chat import open_chat
from remote_trainer.records import AdapterSettings, Message, Sampling

ASKED = [Message(role="user", content="What is the capital of France?")]


class Parrot:
    """Says what it has heard so far."""

    def __init__(self, name: str) -> None:
        self.name = name

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        yield f"{self.name} heard "
        yield " | ".join(message["content"] for message in messages)


def test_each_speaker_keeps_its_own_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(["hello", "", "again", "/reset", "new", "/exit", "never"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    talk({"base": Parrot("B"), "trained": Parrot("T")}, "be brief", 0.0)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        "base: B heard be brief | hello",
        "trained: T heard be brief | hello",
        "base: B heard be brief | hello | B heard be brief | hello | again",
        "trained: T heard be brief | hello | T heard be brief | hello | again",
        "base: B heard be brief | new",
        "trained: T heard be brief | new",
    ]


def test_an_answer_cannot_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(["\x1b]0;title\x07 \u202e\x9b2J caf\u00e9", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    talk({"base": Parrot("B")}, None, 0.0)
    answer = capsys.readouterr().out.splitlines()[1]
    assert answer == "base: B heard \\x1b]0;title\\x07 \\u202e\\x9b2J caf\u00e9"


def test_the_end_of_input_ends_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    talk({"model": Parrot("M")}, None, 0.0)


def adapted(backend: TransformersBackend) -> TransformersBackend:
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj"), seed=0))
    torch.manual_seed(1)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    backend.model.requires_grad_(False)
    return backend


def test_a_reply_is_what_the_model_generates_with_and_without_its_adapter(llama: Any) -> None:
    prompt = llama.prompt_tokenizer.encode_prompt(ASKED)
    room = 2 * len(prompt)
    wanted = {}
    wanted[False] = llama.generate([prompt], Sampling(len(prompt), temperature=0))[0]
    backend = adapted(llama)
    wanted[True] = backend.generate([prompt], Sampling(len(prompt), temperature=0))[0]
    assert wanted[True].ids != wanted[False].ids
    for adapter, generation in wanted.items():
        said = "".join(BackendChatModel(backend, room, adapter).reply(ASKED, 0.0))
        assert said.strip() == backend.prompt_tokenizer.decode(generation.ids).strip()


def test_what_goes_wrong_while_generating_is_raised(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(llama.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(BackendChatModel(llama, 99).reply(ASKED, 0.0))


def test_the_oldest_messages_are_forgotten_when_there_is_no_room(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def generate(**given: Any) -> None:
        asked.append(given["input_ids"].shape[1])
        given["streamer"].end()

    monkeypatch.setattr(llama.model, "generate", generate)
    long = [*ASKED, Message(role="assistant", content="Paris. " * 30), *ASKED]
    room = 2 * len(llama.prompt_tokenizer.encode_prompt(ASKED))
    list(BackendChatModel(llama, room).reply(long, 0.0))
    assert asked == [room // 2]


def turns(*roles: str) -> list[Message]:
    return [Message(role=role, content=f"{role} {i}") for i, role in enumerate(roles)]


def contents(messages: Sequence[Message]) -> list[str]:
    return [message["content"] for message in messages]


def one_id_per_message(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple(range(10 * len(messages)))


@pytest.mark.parametrize(
    ("roles", "max_length", "kept"),
    [
        ("user", 40, ["user 0"]),
        ("user assistant user", 60, ["user 0", "assistant 1", "user 2"]),
        ("user assistant user", 59, ["user 2"]),
        ("system user assistant user", 60, ["system 0", "user 3"]),
        (
            "system user assistant user assistant user",
            90,
            ["system 0", "user 3", "assistant 4", "user 5"],
        ),
        ("user user assistant user", 60, ["user 1", "assistant 2", "user 3"]),
        ("assistant user assistant user", 60, ["user 1", "assistant 2", "user 3"]),
        ("system user", 21, ["system 0", "user 1"]),
    ],
)
def test_a_question_is_forgotten_with_its_answer(
    roles: str, max_length: int, kept: list[str]
) -> None:
    """Ten ids a message, and at most half of the context is taken."""
    found, ids = fitting(turns(*roles.split()), one_id_per_message, max_length)
    assert contents(found) == kept
    assert len(ids) == 10 * len(kept)


@pytest.mark.parametrize(("roles", "count"), [("user assistant user", 10), ("system user", 20)])
def test_a_message_over_the_context_is_too_long(roles: str, count: int) -> None:
    assert fitting(turns(*roles.split()), one_id_per_message, count + 1)
    with pytest.raises(MessageTooLong, match=f"has {count} tokens.*context is {count};"):
        fitting(turns(*roles.split()), one_id_per_message, count)


STRICT_TURNS = (
    "{% for m in messages if m.role != 'system' %}"
    "{% if (m.role == 'user') != (loop.index0 is even) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}<|assistant|>"
)


def said_to(
    speaker: Any, said: Sequence[str], monkeypatch: pytest.MonkeyPatch, system: str | None = None
) -> None:
    left = iter([*said, "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(left))
    talk({"model": speaker}, system, 0.0)


def test_a_long_chat_goes_on_with_a_template_that_wants_turns(
    llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llama.prompt_tokenizer.tokenizer.chat_template = STRICT_TURNS
    asked: list[str] = []
    real = llama.prompt_tokenizer.encode_prompt

    def encode(messages: list[Message]) -> Any:
        asked.append(messages[0]["role"])
        return real(messages)

    monkeypatch.setattr(llama.prompt_tokenizer, "encode_prompt", encode)
    question = "What is the capital of France?"
    room = 3 * len(real([Message(role="user", content=question)]))
    said_to(BackendChatModel(llama, room), [question] * 6, monkeypatch)
    answers = capsys.readouterr().out.splitlines()[1:]
    assert sum(line.startswith("model: ") for line in answers) == 6
    assert "no answer" not in "".join(answers)
    assert set(asked) == {"user"}
    assert len(asked) > 6  # something had to be forgotten


def test_what_cannot_be_answered_is_one_line_and_the_chat_goes_on(
    llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llama.prompt_tokenizer.tokenizer.chat_template = (
        "{% if 'secret' in messages[-1].content %}{{ raise_exception('I will not say') }}"
        "{% endif %}" + STRICT_TURNS
    )
    short = "Name a fruit."
    room = 4 * len(llama.prompt_tokenizer.encode_prompt([Message(role="user", content=short)]))
    speaker = BackendChatModel(llama, room)
    said_to(speaker, ["long " * room, short, "a secret", short], monkeypatch)
    first, second, *others = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("model: (no answer: the message has ")
    assert f"the context is {room}; write a shorter message" in first
    assert not second.startswith("model: (no answer")
    refused = [line for line in others if "no answer" in line]
    assert refused == ["model: (no answer: the model's chat template refuses it: 'I will not say')"]
    assert sum(line.startswith("model: ") for line in others) == 2


@pytest.fixture
def gguf_speaker(llama_folder: Path, toy_gguf: Path, tmp_path: Path) -> Callable[[str, int], Any]:
    def make(template: str, context: int) -> GgufChatModel:
        model = tmp_path / "model"
        shutil.copytree(llama_folder, model)
        (model / "chat_template.jinja").write_text(template)
        gguf.convert(model, tmp_path / "m.gguf", "f32")
        return GgufChatModel(tmp_path / "m.gguf", context)

    return make


def test_a_gguf_forgets_and_refuses_in_the_same_way(
    gguf_speaker: Callable[[str, int], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    template = (
        "{% if 'secret' in messages[-1].content %}{{ raise_exception('I will not say') }}"
        "{% endif %}" + STRICT_TURNS
    )
    speaker = gguf_speaker(template, 256)
    asked = "What is the capital of France? " * 2
    said_to(speaker, ["long " * 256, asked, "a secret", *[asked] * 4], monkeypatch)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("model: ")]
    assert len(lines) == 7
    assert "tokens, including chat template" in lines[0]
    assert "I will not say" in lines[2]
    assert not [
        line for place, line in enumerate(lines) if place not in (0, 2) and "no answer" in line
    ]


@pytest.mark.parametrize(
    ("target", "base", "message"),
    [
        ("nowhere.gguf", False, "no such file"),
        ("builtin/smollm2-135m-instruct", True, "is not a run folder, so it has no adapter"),
    ],
)
def test_mistakes_are_explained_before_a_model_is_loaded(
    target: str, base: bool, message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        open_chat(target, base)


def test_a_gguf_has_no_base_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserInputError, match="has no separate adapter"):
        open_chat(str(tmp_path / "m.gguf"), base=True)


def test_a_gguf_that_llama_cpp_does_not_load_is_explained(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserInputError, match=r"llama.cpp cannot load .*m.gguf: the file is trunc"):
        open_chat(str(tmp_path / "m.gguf"), base=False)


def test_a_chat_has_no_more_room_than_the_model_has_positions(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model has 256; the default of model.max_seq_length is 2048."""
    speakers, system = open_chat(str(llama_folder), base=False)
    said_to(speakers["model"], ["word " * 256], monkeypatch, system)
    assert "but the context is 256;" in capsys.readouterr().out


def test_bytes_that_are_no_text_do_not_end_the_chat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for how in ("strict", "surrogateescape"):
        typed = TextIOWrapper(BytesIO(b"caf\xe9\n"), encoding="utf-8", errors=how)
        monkeypatch.setattr("sys.stdin", typed)
        talk({"model": Parrot("M")}, None, 0.0)
        assert "M heard caf\ufffd" in capsys.readouterr().out

"""Talking to a model: what is said is what the model would generate, and mistakes are explained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.cli.chat import talk
from remote_trainer.engine.backend import AdapterSettings
from remote_trainer.engine.speaker import ModelSpeaker
from remote_trainer.engine.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.chat import open_chat
from remote_trainer.records import Message, Sampling

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
    prompt = llama.codec.encode_prompt(ASKED)
    room = 2 * len(prompt)
    wanted = {}
    wanted[False] = llama.generate([prompt], Sampling(len(prompt), temperature=0))[0]
    backend = adapted(llama)
    wanted[True] = backend.generate([prompt], Sampling(len(prompt), temperature=0))[0]
    assert wanted[True].ids != wanted[False].ids
    for adapter, generation in wanted.items():
        said = "".join(ModelSpeaker(backend, room, adapter).reply(ASKED, 0.0))
        assert said.strip() == backend.codec.decode(generation.ids).strip()


def test_what_goes_wrong_while_generating_is_raised(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(llama.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(ModelSpeaker(llama, 99).reply(ASKED, 0.0))


def test_the_oldest_messages_are_forgotten_when_there_is_no_room(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def generate(**given: Any) -> None:
        asked.append(given["input_ids"].shape[1])
        given["streamer"].end()

    monkeypatch.setattr(llama.model, "generate", generate)
    long = [*ASKED, Message(role="assistant", content="Paris. " * 30), *ASKED]
    room = 2 * len(llama.codec.encode_prompt(ASKED))
    list(ModelSpeaker(llama, room).reply(long, 0.0))
    assert asked == [room // 2]


@pytest.mark.parametrize(
    ("target", "base", "message"),
    [
        ("nowhere.gguf", False, "no such file"),
        ("builtin/smollm2-135m-instruct", True, "is no run, so it has no adapter"),
    ],
)
def test_mistakes_are_explained_before_a_model_is_loaded(
    target: str, base: bool, message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        open_chat(target, base)


def test_a_gguf_has_no_base_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserInputError, match="holds no adapter"):
        open_chat(str(tmp_path / "m.gguf"), base=True)

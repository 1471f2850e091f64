"""A model in conversation: messages in, the answer piece by piece."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from remote_trainer.engine.backend import Backend
from remote_trainer.engine.llama_server import LlamaServer
from remote_trainer.records import Message


class Speaker(Protocol):
    """Anything one can talk to."""

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """The answer to a conversation that ends with the user; temperature 0 is greedy."""
        ...


class GgufSpeaker:
    """A GGUF file, in llama.cpp."""

    def __init__(self, file: Path, max_length: int) -> None:
        self._server = LlamaServer(file, max_length)

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """Piece by piece."""
        return self._server.stream(messages, temperature)


class ModelSpeaker:
    """A loaded model, with its adapter or without."""

    def __init__(self, backend: Backend, max_length: int, adapter: bool = True) -> None:
        self._backend = backend
        self._max_length = max_length
        self._adapter = adapter

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """Piece by piece; generation runs in a thread of its own. What it raises is raised here.

        Where a conversation has grown too long its oldest messages are forgotten.
        """
        from transformers import TextIteratorStreamer

        codec = self._backend.codec
        kept = list(messages)
        while len(ids := codec.encode_prompt(kept)) > self._max_length // 2 and len(kept) > 1:
            kept.pop(1 if kept[0]["role"] == "system" and len(kept) > 2 else 0)
        streamer = TextIteratorStreamer(codec.tokenizer, skip_prompt=True, skip_special_tokens=True)
        failures: list[BaseException] = []

        def generate() -> None:
            try:
                self._generate(list(ids), temperature, streamer)
            except BaseException as error:
                failures.append(error)
                streamer.end()

        thread = Thread(target=generate, daemon=True)
        thread.start()
        yield from streamer
        thread.join()
        if failures:
            raise failures[0]

    def _generate(self, ids: list[int], temperature: float, streamer: Any) -> None:
        import torch

        model = self._backend.model
        off = nullcontext() if self._adapter else model.disable_adapter()
        prompt = torch.tensor([ids], device=model.device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
        with torch.no_grad(), off:
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self._max_length - len(ids),
                eos_token_id=list(self._backend.codec.eos_ids),
                pad_token_id=self._backend.codec.pad_id,
                streamer=streamer,
                **{"do_sample": False, **sampling},
            )

"""A model in conversation: messages in, the answer piece by piece."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from remote_trainer.engines.protocol import Backend
from remote_trainer.llama_cpp.server import LlamaServer
from remote_trainer.records import Message, TokenIds


class MessageTooLong(ValueError):
    """One message alone fills the context. Its text is one line, fit for people."""


class ChatModel(Protocol):
    """Anything one can talk to."""

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """The answer to a conversation that ends with the user; temperature 0 is greedy.

        Where the conversation has grown too long its oldest turns are forgotten. Raises
        MessageTooLong where the last message alone is, and TemplateRefusal where the chat template
        does not render the messages.
        """
        ...


class GgufChatModel:
    """A GGUF file, in llama.cpp."""

    def __init__(self, file: Path, max_length: int) -> None:
        self._server = LlamaServer(file, max_length)
        self._max_length = max_length

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """Piece by piece."""
        room = self._max_length - 1  # the server may put a BOS in front
        kept, ids = fitting(messages, self._encode, room)
        yield from self._server.stream(kept, temperature, room - len(ids))

    def _encode(self, messages: list[Message]) -> TokenIds:
        return tuple(self._server.render(messages, {}))


class BackendChatModel:
    """A loaded model, with its adapter or without."""

    def __init__(self, backend: Backend, max_length: int, adapter: bool = True) -> None:
        self._backend = backend
        self._max_length = max_length
        self._adapter = adapter

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """Piece by piece; generation runs in a thread of its own. What it raises is raised here."""
        from transformers import TextIteratorStreamer

        prompt_tokenizer = self._backend.prompt_tokenizer
        _, ids = fitting(messages, prompt_tokenizer.encode_prompt, self._max_length)
        streamer = TextIteratorStreamer(
            prompt_tokenizer.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
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
                eos_token_id=list(self._backend.prompt_tokenizer.eos_ids),
                pad_token_id=self._backend.prompt_tokenizer.pad_id,
                streamer=streamer,
                **{"do_sample": False, **sampling},
            )


def fitting(
    messages: Sequence[Message], encode: Callable[[list[Message]], TokenIds], max_length: int
) -> tuple[list[Message], TokenIds]:
    """(what of a conversation is kept, its ids): at most half of the context, to leave the other
    half for the answer.

    The system message stays. Whole turns are forgotten, the oldest first: a message of the user
    with what was answered, so that what is left begins with the user, as templates want it. The
    last message is kept even where it takes more than half; raises MessageTooLong where it leaves
    no room for a single token.
    """
    system = list(takewhile(lambda message: message["role"] == "system", messages))
    turns = _turns(messages[len(system) :])
    while True:
        kept = [*system, *(message for turn in turns for message in turn)]
        ids = encode(kept)
        if len(ids) <= max_length // 2 or len(turns) == 1:
            break
        del turns[0]
    if len(ids) >= max_length:
        raise MessageTooLong(
            f"the message has {len(ids)} tokens, those of the chat template and the system prompt "
            f"included, and the context is {max_length}; write a shorter one"
        )
    return kept, ids


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """A turn is a message of the user and what follows up to the next one."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns

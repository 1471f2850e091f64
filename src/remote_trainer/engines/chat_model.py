"""Chat with a model: messages in, a streamed answer out."""

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
    """One message alone fills the context. Its text is one line for the user."""


class ChatModel(Protocol):
    """Something that answers chat messages."""

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """The answer to a conversation that ends with the user; temperature 0 is greedy.

        The oldest turns of a conversation that is too long are dropped. Raises MessageTooLong if
        the last message alone is too long, and TemplateRefusal if the chat template does not
        render the messages.
        """
        ...


class GgufChatModel:
    """A GGUF file, in llama.cpp."""

    def __init__(self, file: Path, max_length: int) -> None:
        self._server = LlamaServer(file, max_length)
        self._max_length = max_length

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """The answer in pieces."""
        context = self._max_length - 1  # the server may prepend a BOS
        kept, ids = fitting(messages, self._encode, context)
        yield from self._server.stream(kept, temperature, context - len(ids))

    def _encode(self, messages: list[Message]) -> TokenIds:
        return tuple(self._server.render(messages, {}))


class BackendChatModel:
    """A loaded model, with its adapter or without."""

    def __init__(self, backend: Backend, max_length: int, adapter: bool = True) -> None:
        self._backend = backend
        self._max_length = max_length
        self._adapter = adapter

    def reply(self, messages: Sequence[Message], temperature: float) -> Iterator[str]:
        """The answer in pieces; generation runs in a thread, and its errors are raised here."""
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
    """(kept messages, their ids): at most half of the context, to leave the other half for the
    answer.

    The system message stays. Whole turns are dropped, oldest first: a user message with its
    answer, so that the rest starts with a user message, as templates require. The last message is
    kept even if it takes more than half; raises MessageTooLong if no token of the context is left.
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
            f"the message has {len(ids)} tokens, including chat template and system prompt, but "
            f"the context is {max_length}; write a shorter message"
        )
    return kept, ids


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """A turn is a user message and everything up to the next one."""
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns

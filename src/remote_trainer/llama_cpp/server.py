"""llama.cpp's server inside this process, for reading GGUF files and chatting with them.

It listens only on the loopback address, on a free port.
"""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from remote_trainer.errors import EngineError
from remote_trainer.records import Message, Prompt, Tools
from remote_trainer.tokenization.template_refusal import TemplateRefusal

WHOLE_VOCABULARY = 2**31 - 1
FORCED = 1e9

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Connects to the loopback address directly, without a proxy.

No timeout: on a CPU a long prompt takes minutes before the first byte, and the server is part of
this process. httpx needs as many lines and takes twice the time per answer.
"""


class ServerError(EngineError):
    """llama.cpp's server refused a request; ``message`` is the server's."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(f"llama.cpp's server: {message}")


class LlamaServer:
    """llama.cpp with one model in memory, for contexts of at most ``context`` tokens.

    Raises EngineError if the model cannot be loaded.
    """

    def __init__(self, model: Path, context: int, adapter: Path | None = None) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(model)
        settings.n_ctx = context
        settings.n_parallel = 1
        settings.warmup = False
        settings.use_jinja = True
        if adapter is not None:
            lora = xllamacpp.CommonAdapterLoraInfo()
            lora.path, lora.scale = str(adapter), 1.0
            settings.lora_adapters = [lora]
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError as error:  # the reason is only on stderr
            raise EngineError(
                f"llama.cpp cannot load {model}: the file is truncated or not a GGUF, the "
                "architecture is not supported, or the chat template is invalid or refuses every "
                "message"
            ) from error
        self.model = model
        self._letter = self.post("/tokenize", {"content": "a"})["tokens"][-1]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON, get JSON."""
        with self._open(path, body) as response:
            return json.load(response)

    def _open(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            return _DIRECT.open(request)
        except HTTPError as error:
            raise ServerError(_message_of(error)) from error
        except URLError as error:
            raise ConnectionError(
                f"llama.cpp's server at {self._server.listening_address} cannot be reached "
                f"({error.reason}): it needs the loopback interface of this machine or container"
            ) from error

    def next_token(self, ids: list[int], likely: int) -> dict[int, float]:
        """Log-probs in nats of the ``likely`` most likely ids after ``ids``, descending."""
        # The server omits a position if the sampled token ends the text or is part of a character.
        # So a letter is forced; the log-probs are those from before the bias.
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": likely}
        forced = {"logit_bias": [[self._letter, FORCED]], "cache_prompt": True}
        found = self.post("/completion", {**body, **forced})
        top = found["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in top}

    def generate(self, ids: list[int], length: int) -> list[int]:
        """Greedy ids."""
        body = {"prompt": ids, "n_predict": length, "temperature": 0, "return_tokens": True}
        found: list[int] = self.post("/completion", body)["tokens"]
        return found

    def render(
        self, prompt: Prompt, chat_template_kwargs: Mapping[str, Any], tools: Tools | None = None
    ) -> list[int]:
        """A prompt's ids from the chat template and tokenizer in the file.

        Raises TemplateRefusal if the template does not render it.
        """
        literal = isinstance(prompt, str)
        if isinstance(prompt, str):
            text = prompt
        else:
            request = {
                "messages": [with_json_arguments(message) for message in prompt],
                "chat_template_kwargs": dict(chat_template_kwargs),
                **({"tools": list(tools)} if tools else {}),
            }
            try:
                text = self.post("/apply-template", request)["prompt"]
            except ServerError as error:
                raise TemplateRefusal(error.message, deliberate=True) from error
        body = {"content": text, "add_special": literal, "parse_special": not literal}
        found: list[int] = self.post("/tokenize", body)["tokens"]
        return found

    def eos_ids(self) -> list[int]:
        """The end-of-text ids in the file."""
        from gguf import GGUFReader

        fields = GGUFReader(self.model).fields
        names = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        return [int(fields[name].contents()) for name in names if name in fields]

    def stream(self, messages: Sequence[Message], temperature: float, length: int) -> Iterator[str]:
        """An answer of at most ``length`` tokens to a conversation, streamed."""
        body = {"messages": list(messages), "temperature": temperature, "max_tokens": length}
        with self._open("/v1/chat/completions", {**body, "stream": True}) as response:
            for line in response:
                data = line.decode().removeprefix("data:").strip()
                if data and data != "[DONE]":
                    yield _piece(json.loads(data))


def _piece(event: dict[str, Any]) -> str:
    if "error" in event:
        raise ServerError(_message(event))
    return event["choices"][0]["delta"].get("content") or ""


def _message_of(error: HTTPError) -> str:
    """The message in the body of the response, or the status."""
    try:
        return _message(json.loads(error.read()))
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _message(answer: dict[str, Any]) -> str:
    return str(answer["error"]["message"])


def with_json_arguments(message: Message) -> Message:
    """llama.cpp expects the arguments of tool calls as JSON text, like chat APIs."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"].get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        calls.append({**call, "function": {**call["function"], "arguments": text}})
    return {**message, "tool_calls": calls}

"""Reads an exported GGUF the way its users will: llama.cpp's server in a fresh process.

    python -m remote_trainer.export.read_llama_cpp ASK.json ANSWER.json

The server listens on the loopback address only, on a port of its own choice.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

LIKELY = 200
"""Tokens of the first answer; all of the vocabulary is asked for where the wanted one is rarer."""
WHOLE_VOCABULARY = 2**31 - 1
CONTEXT_MARGIN = 16


def main(ask: str, answer: str) -> None:
    """``ask``: model, adapter, base, expected; see `export.reading`."""
    task = json.loads(Path(ask).read_text(encoding="utf-8"))
    expected = task["expected"]
    found = read(LlamaServer(task["model"], task["adapter"], expected["questions"]), expected)
    base = LlamaServer(task["base"], None, expected["questions"])
    found["base"] = [score(base, question)[0] for question in expected["questions"]]
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


class LlamaServer:
    """llama.cpp with one model in memory."""

    def __init__(self, model: str, adapter: str | None, questions: list[dict[str, Any]]) -> None:
        import xllamacpp

        longest = max(len(q["prompt_ids"]) + len(q["completion_ids"]) for q in questions)
        settings = xllamacpp.CommonParams()
        settings.model.path = model
        settings.n_ctx = longest + CONTEXT_MARGIN
        settings.n_parallel = 1
        settings.warmup = False
        settings.use_jinja = True
        if adapter is not None:
            lora = xllamacpp.CommonAdapterLoraInfo()
            lora.path, lora.scale = adapter, 1.0
            settings.lora_adapters = [lora]
        self._server = xllamacpp.Server(settings)
        self.model = model

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON, get JSON."""
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def next_token(self, ids: list[int], likely: int) -> dict[int, float]:
        """Log-probs in nats of the likeliest ``likely`` ids behind ``ids``, likeliest first."""
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": likely}
        found = self.ask("/completion", {**body, "cache_prompt": True})
        top = found["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in top}

    def generate(self, ids: list[int], length: int) -> list[int]:
        """Greedy ids."""
        body = {"prompt": ids, "n_predict": length, "temperature": 0, "return_tokens": True}
        found: list[int] = self.ask("/completion", body)["tokens"]
        return found

    def render(self, prompt: Any, chat_template_kwargs: dict[str, Any]) -> list[int]:
        """A prompt's ids by the file's own chat template and tokenizer."""
        literal = isinstance(prompt, str)
        text = prompt
        if not literal:
            body = {"messages": prompt, "chat_template_kwargs": chat_template_kwargs}
            text = self.ask("/apply-template", body)["prompt"]
        body = {"content": text, "add_special": literal, "parse_special": not literal}
        found: list[int] = self.ask("/tokenize", body)["tokens"]
        return found

    def eos_ids(self) -> list[int]:
        """What the file says ends a text."""
        from gguf import GGUFReader

        fields = GGUFReader(self.model).fields
        names = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        return [int(fields[name].contents()) for name in names if name in fields]


def read(server: LlamaServer, expected: dict[str, Any]) -> dict[str, Any]:
    """A `Reading` as JSON."""
    questions, options = expected["questions"], expected["chat_template_kwargs"]
    scores = [score(server, question) for question in questions]
    return {
        "logprobs": [logprobs for logprobs, _ in scores],
        "likeliest_ids": [ids for _, ids in scores],
        "greedy_ids": [
            server.generate(q["prompt_ids"], len(q["completion_ids"])) for q in questions
        ],
        "prompt_ids": [server.render(q["prompt"], options) for q in questions],
        "eos_ids": server.eos_ids(),
    }


def score(server: LlamaServer, question: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Log-probs of the completion's ids in nats, and the likeliest id at each position."""
    logprobs, likeliest = [], []
    prompt, completion = question["prompt_ids"], question["completion_ids"]
    for place, wanted in enumerate(completion):
        seen = prompt + completion[:place]
        found = server.next_token(seen, LIKELY)
        if wanted not in found:
            found = server.next_token(seen, WHOLE_VOCABULARY)
        logprobs.append(found[wanted])
        likeliest.append(next(iter(found)))
    return logprobs, likeliest


if __name__ == "__main__":
    main(*sys.argv[1:])

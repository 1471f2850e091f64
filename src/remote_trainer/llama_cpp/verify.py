"""Reads an exported GGUF as its users will: with llama.cpp's server in a new process.

python -m remote_trainer.llama_cpp.verify ASK.json ANSWER.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from remote_trainer.llama_cpp.server import WHOLE_VOCABULARY, LlamaServer

LIKELY = 200
"""Number of most likely tokens requested first; the whole vocabulary if the target is rarer."""
CONTEXT_MARGIN = 16


def main(ask: str, answer: str) -> None:
    """``ask``: model, adapter, base, expected; see `export.verify`."""
    task = json.loads(Path(ask).read_text(encoding="utf-8"))
    expected = task["expected"]
    questions = expected["questions"]
    longest = max(len(q["prompt_ids"]) + len(q["completion_ids"]) for q in questions)
    context = longest + CONTEXT_MARGIN
    adapter = task["adapter"] and Path(task["adapter"])
    found = read(LlamaServer(Path(task["model"]), context, adapter), expected)
    base = LlamaServer(Path(task["base"]), context)
    found["base"] = [score(base, question)[0] for question in questions]
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


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
        "prompt_ids": [server.render(q["prompt"], options, q["tools"]) for q in questions],
        "eos_ids": server.eos_ids(),
    }


def score(server: LlamaServer, question: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Log-probs of the completion's ids in nats, and the most likely id at each position."""
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

"""Reads an exported folder as its users will: with transformers and PEFT in a new process.

    python -m remote_trainer.export.verify_transformers ASK.json ANSWER.json

Does not use our engine: one row at a time, through the stock forward pass.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(ask: str, answer: str) -> None:
    """``ask`` is the file that `export.verify` writes."""
    task = json.loads(Path(ask).read_text(encoding="utf-8"))
    model = load(task["model"], task["dtype"], task["adapter"], task["in_4bit"])
    found = read(model, task["model_tokenizer"], task["expected"])
    del model
    base = load(task["base"], task["dtype"], None, task["in_4bit"])
    found["base"] = [score(base, question)[0] for question in task["expected"]["questions"]]
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def load(folder: str, dtype: str, adapter: str | None, in_4bit: bool) -> Any:
    """A model for inference, from local safetensors only."""
    import torch
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {}
    if in_4bit:
        # It imports torch, which this module needs only for reading a model.
        from remote_trainer.models.quantization import nf4

        more["quantization_config"] = nf4(getattr(torch, dtype))
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        local_files_only=True,
        **more,
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def read(model: Any, tokenizer_folder: str, expected: dict[str, Any]) -> dict[str, Any]:
    """A `Reading` as JSON."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    scores = [score(model, question) for question in expected["questions"]]
    eos = model.generation_config.eos_token_id
    eos_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    return {
        "logprobs": [logprobs for logprobs, _ in scores],
        "likeliest_ids": [ids for _, ids in scores],
        "greedy_ids": [greedy(model, tokenizer, question) for question in expected["questions"]],
        "prompt_ids": [
            render(tokenizer, question, expected["chat_template_kwargs"])
            for question in expected["questions"]
        ],
        "eos_ids": list(dict.fromkeys([*eos_ids, tokenizer.eos_token_id])),
    }


def score(model: Any, question: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Log-probs of the completion's ids in nats, and the most likely id at each position."""
    import torch

    asked = question["prompt_ids"] + question["completion_ids"]
    ids = torch.tensor([asked], device=model.device)
    with torch.no_grad():
        logits_TV = model(input_ids=ids).logits[0, :-1].float()
    logps_CV = logits_TV[len(question["prompt_ids"]) - 1 :].log_softmax(-1)
    wanted_C = ids[0, len(question["prompt_ids"]) :]
    chosen_C = logps_CV.gather(-1, wanted_C[:, None])[:, 0]
    return chosen_C.tolist(), logps_CV.argmax(-1).tolist()


def greedy(model: Any, tokenizer: Any, question: dict[str, Any]) -> list[int]:
    """As many greedy ids as the policy's completion has."""
    import torch

    ids = torch.tensor([question["prompt_ids"]], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=len(question["completion_ids"]),
        pad_token_id=tokenizer.pad_token_id or 0,
    )
    found: list[int] = output[0, ids.shape[1] :].tolist()
    return found


def render(
    tokenizer: Any, question: dict[str, Any], chat_template_kwargs: dict[str, Any]
) -> list[int]:
    """The prompt's ids by the export's own tokenizer and chat template."""
    prompt, tools = question["prompt"], question["tools"]
    if isinstance(prompt, str):
        found: list[int] = tokenizer(prompt)["input_ids"]
        return found
    text = tokenizer.apply_chat_template(
        prompt,
        tokenize=False,
        add_generation_prompt=True,
        **{**chat_template_kwargs, **({"tools": tools} if tools else {})},
    )
    rendered: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return rendered


if __name__ == "__main__":
    main(*sys.argv[1:])

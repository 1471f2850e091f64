"""What a stranger needs to know about a trained model, in the form the hub reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

EVALUATED = ("accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob", "reward")
TITLES = {
    "lora": "LoRA adapter",
    "merged_16bit": "Merged model in 16 bits",
    "merged_4bit": "Merged model in 4 bits (bitsandbytes NF4)",
    "gguf": "Merged model as GGUF",
}


@dataclass(frozen=True)
class CardFacts:
    """Everything a card states."""

    base_model: str
    reward: str
    data: str
    data_sha256: str
    updates: int
    config_yaml: str
    versions: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    """Content of eval.json; None before the evaluation."""
    adapter: str = ""
    """The adapter that was trained further; empty for a fresh one."""
    adapter_sha256: str = ""


def model_card(facts: CardFacts, form: str, file: str = "") -> str:
    """Markdown with the hub's YAML header; ``file`` is the name of a GGUF, if there is one."""
    versions = "\n".join(f"- {name}: {value}" for name, value in facts.versions.items())
    return f"""---
{yaml.safe_dump(_header(facts, form), sort_keys=False).strip()}
---

# {TITLES[form]}, trained by remote_trainer

- Base model: `{facts.base_model}`; its licence holds for this model, too{_begun(facts)}
- Method: GRPO with the reward {facts.reward}, computed from token log-probabilities
- Data: `{facts.data}` (sha256 `{facts.data_sha256}`)
- Updates: {facts.updates}
- Proof that these files are the model that was trained: `proof.json`

## Evaluation

{_evaluation(facts.evaluation)}

## Use

{_use(facts, form, file)}

## Versions

{versions}

## Config

```yaml
{facts.config_yaml.strip()}
```
"""


def _begun(facts: CardFacts) -> str:
    if not facts.adapter:
        return ""
    return (
        f"\n- Training went on from the adapter `{facts.adapter}` "
        f"(sha256 `{facts.adapter_sha256}`); updates and evaluation before count from there"
    )


def modelfile(file: str) -> str:
    """For `ollama create`; chat template and end of text stand in the GGUF itself."""
    return f"FROM ./{file}\n"


def _header(facts: CardFacts, form: str) -> dict[str, Any]:
    libraries = {"lora": "peft", "gguf": "gguf"}
    header: dict[str, Any] = {
        "library_name": libraries.get(form, "transformers"),
        "tags": [*(["lora"] if form == "lora" else []), "grpo", "remote_trainer"],
        "pipeline_tag": "text-generation",
    }
    if not facts.base_model.startswith(("builtin/", "/", ".")):
        header["base_model"] = facts.base_model
    return header


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation or not evaluation.get("after"):
        return "Not evaluated."
    before, after = evaluation.get("before") or {}, evaluation["after"]
    lines = ["| | before | after |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {_number(before.get(name))} | {_number(after[name])} |"
        for name in EVALUATED
        if after.get(name) is not None
    ]
    return "\n".join([evaluation["verdict"]["text"], "", *lines])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _use(facts: CardFacts, form: str, file: str) -> str:
    if form == "gguf":
        return f"""```
llama-cli -m {file} -cnv
ollama create my-model -f Modelfile && ollama run my-model
remote-trainer chat {file}
```"""
    if form == "lora":
        llama = f"\n\nor in llama.cpp: `llama-cli -m BASE.gguf --lora {file} -cnv`" if file else ""
        return f"""```python
from peft import PeftModel
from remote_trainer.engine import resolve_model
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(resolve_model("{facts.base_model}"))
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained("adapter")
```

or beside its base in vLLM: `vllm serve BASE --enable-lora --lora-modules mine=adapter`{llama}"""
    serve = (
        ""
        if form == "merged_4bit"
        else f"\n\nor `vllm serve {form}`; as GGUF: `remote-trainer export RUN_DIR --format gguf`"
    )
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{form}")
tokenizer = AutoTokenizer.from_pretrained("{form}")
```{serve}"""

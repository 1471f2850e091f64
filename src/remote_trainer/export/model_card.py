"""The model card: facts about a trained model in the format of the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from remote_trainer.metrics import per_row_keys


@dataclass(frozen=True)
class CardFacts:
    """The content of a model card."""

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
    """The adapter that was trained further; empty for a new one."""
    adapter_sha256: str = ""
    system_prompt: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)


def model_card(facts: CardFacts, title: str, library: str, tags: Sequence[str], use: str) -> str:
    """Markdown with the hub's YAML header; ``use`` explains how to load the model."""
    versions = "\n".join(f"- {name}: {value}" for name, value in facts.versions.items())
    return f"""---
{yaml.safe_dump(_header(facts, library, tags), sort_keys=False).strip()}
---

# {title}, trained by remote_trainer

- Base model: `{facts.base_model}`; its licence also applies to this model{_continued(facts)}
- Method: GRPO with the reward {facts.reward}, computed from token log-probabilities
- Data: `{facts.data}` (sha256 `{facts.data_sha256}`)
- Updates: {facts.updates}
- Verification that these files match the trained model: `proof.json`

## Evaluation

{_evaluation(facts.evaluation)}

## Use

{use}

## Versions

{versions}

## Config

```yaml
{facts.config_yaml.strip()}
```
"""


def _continued(facts: CardFacts) -> str:
    if not facts.adapter:
        return ""
    return (
        f"\n- Training continued from the adapter `{facts.adapter}` "
        f"(sha256 `{facts.adapter_sha256}`); updates and the evaluation before training start there"
    )


def _header(facts: CardFacts, library: str, tags: Sequence[str]) -> dict[str, Any]:
    header: dict[str, Any] = {
        "library_name": library,
        "tags": [*tags, "grpo", "remote_trainer"],
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
        for name in per_row_keys()
        if after.get(name) is not None
    ]
    return "\n".join([evaluation["verdict"]["text"], "", *lines])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def use_gguf(facts: CardFacts, file: str) -> str:
    """How to load the GGUF ``file``."""
    return f"""```
llama-cli -m {file} -cnv
ollama create my-model -f Modelfile && ollama run my-model
remote-trainer chat {file}
```"""


def use_adapter(facts: CardFacts, file: str) -> str:
    """How to load a PEFT folder; ``file`` is the same adapter as GGUF, or empty."""
    llama = f"\n\nor in llama.cpp: `llama-cli -m BASE.gguf --lora {file} -cnv`" if file else ""
    return f"""```python
from peft import PeftModel
from remote_trainer.engine import resolve_model
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(resolve_model("{facts.base_model}"))
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained("adapter")
```

or in vLLM with its base: `vllm serve BASE --enable-lora --lora-modules mine=adapter`{llama}"""


def use_merged(folder: str, facts: CardFacts, file: str, served: bool) -> str:
    """How to load a merged model; ``served``: also in vLLM."""
    serve = (
        f"\n\nor `vllm serve {folder}`; as GGUF: `remote-trainer export RUN_DIR --format gguf`"
        if served
        else ""
    )
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```{serve}"""

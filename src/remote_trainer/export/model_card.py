"""What a stranger needs to know about a trained model, in the form the hub reads."""

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class CardFacts:
    """Everything a card states."""

    base_model: str
    reward: str
    data: str
    data_sha256: str
    updates: int
    config_yaml: str
    versions: dict[str, Any]


def model_card(facts: CardFacts) -> str:
    """Markdown with the hub's YAML header."""
    header: dict[str, Any] = {
        "library_name": "peft",
        "tags": ["lora", "grpo", "remote_trainer"],
        "pipeline_tag": "text-generation",
    }
    if not facts.base_model.startswith(("builtin/", "/", ".")):
        header["base_model"] = facts.base_model
    versions = "\n".join(f"- {name}: {value}" for name, value in facts.versions.items())
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# LoRA adapter trained by remote_trainer

- Base model: `{facts.base_model}`
- Method: GRPO with the reward {facts.reward}, computed from token log-probabilities
- Data: `{facts.data}` (sha256 `{facts.data_sha256}`)
- Updates: {facts.updates}

How the model did before and after is in `eval.json` and `report.html` of the run folder.

## Use

```python
from peft import PeftModel
from remote_trainer.engine import resolve_model
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(resolve_model("{facts.base_model}"))
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained("adapter")
```

## Versions

{versions}

## Config

```yaml
{facts.config_yaml.strip()}
```
"""

"""vLLM's sampling settings: the fields that are used here, others are refused as there."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SamplingParams:
    n: int = 1
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    structured_outputs: Any = None


@dataclass
class StructuredOutputsParams:
    regex: str | None = None

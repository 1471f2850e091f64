"""How far apart two ways to the same log-probs are for no reason but rounding, in nats.

    python benchmarks/logprob_gaps.py [--batches 3] [--case bfloat16 ...]

The built-in model with an adapter away from zero, in each dtype and in 4 bits, on a CPU. Compared
are the pairs that a run compares before it takes the faster way, with its own functions on real
prompts: packed rows against rows of their own, logits in chunks against whole ones, and each way to
decode against plain passes. `precision` is a pass against one in float32 with the same weights,
which no run compares: it tells how much of a gap is the dtype. Prints the median and the largest of
all batches as a table, for `remote_trainer.inference.agreement`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from remote_trainer.engine import resolve_model
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference import decoding_paths, own_rows, packed_rows
from remote_trainer.inference.sampling import WAYS
from remote_trainer.models.modes import scoring_mode
from remote_trainer.records import AdapterSettings, Continuation, LoadSettings, Sampling, TokenIds

ROOT = Path(__file__).parents[1]
PROMPTS, COMPLETIONS, TOKENS = 4, 2, 16
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CASES: dict[str, tuple[str, bool, str]] = {
    "float32": ("float32", False, "float32"),
    "bfloat16": ("bfloat16", False, "bfloat16"),
    "float32, sampled in bfloat16": ("float32", False, "bfloat16"),
    "4-bit, computes in bfloat16": ("bfloat16", True, "bfloat16"),
    "4-bit, computes in float32": ("float32", True, "float32"),
}
"""Name -> (dtype of weights or of 4-bit products, in 4 bits, dtype of sampling)."""


def loaded(dtype: str, in_4bit: bool) -> TransformersBackend:
    """The built-in model with the same adapter in every case."""
    folder = resolve_model("builtin/smollm2-135m-instruct")
    backend = TransformersBackend.load(folder, LoadSettings(dtype=dtype, load_in_4bit=in_4bit))
    backend.add_adapter(AdapterSettings(16, 16, 0.0, SEVEN, seed=0))
    draw = torch.Generator().manual_seed(1)
    for name, value in backend.model.named_parameters():
        if "lora_B" in name:
            value.data.copy_(torch.randn(value.shape, generator=draw) * 0.01)
    return backend


def batches(backend: TransformersBackend, count: int) -> Iterator[list[TokenIds]]:
    """Prompts of the shipped data, as a run has them."""
    lines = (ROOT / "data/train_supervised.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [backend.prompt_tokenizer.encode_prompt(json.loads(line)["prompt"]) for line in lines]
    for start in range(0, count * PROMPTS, PROMPTS):
        yield prompts[start : start + PROMPTS]


def gaps_of(
    backend: TransformersBackend,
    exact: TransformersBackend,
    prompts: list[TokenIds],
    sampling_dtype: torch.dtype,
) -> dict[str, float]:
    """Pair -> its gap on one batch."""
    model, tokenizer = backend.model, backend.prompt_tokenizer
    asked = [prompt for prompt in prompts for _ in range(COMPLETIONS)]
    generations = exact.generate(asked, Sampling(TOKENS, seed=3))
    rows = [Continuation(p, g.ids) for p, g in zip(asked, generations, strict=True)]
    width = max(len(row.ids) for row in rows)

    def alone(model: Any, chunked: bool) -> torch.Tensor:
        return own_rows.row_logprobs(
            model, rows, width, 1.0, tokenizer.pad_id, chunked=chunked, with_entropies=False
        )[0]

    with scoring_mode(model), scoring_mode(exact.model):
        whole = alone(model, False)
        lengths = torch.tensor([len(row.ids) for row in rows])
        truth = alone(exact.model, False)
        packed, _ = packed_rows.continuation_logprobs(model, rows, width, 1.0)

        def apart(logprobs: torch.Tensor) -> float:
            return float(((logprobs - truth).abs().sum(1) / lengths).max())

        found = {
            "packed rows": packed_rows._largest_gap(model, rows),
            "chunks": float((alone(model, True) - whole).abs().max()),
            "precision of whole rows": apart(whole),
            "precision of packed rows": apart(packed),
        }
        for way in WAYS[1:-1]:
            found[way.name] = decoding_paths._largest_gap(
                way, model, tokenizer, asked, sampling_dtype
            )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    print("| dtype | compared | median | largest |\n| --- | --- | --- | --- |")
    for name in asked.case:
        dtype, in_4bit, sampling = CASES[name]
        backend, exact = loaded(dtype, in_4bit), loaded("float32", in_4bit)
        found: dict[str, list[float]] = {}
        for prompts in batches(backend, asked.batches):
            for pair, gap in gaps_of(backend, exact, prompts, getattr(torch, sampling)).items():
                found.setdefault(pair, []).append(gap)
        for pair, gaps in found.items():
            print(f"| {name} | {pair} | {median(gaps):.1e} | {max(gaps):.1e} |", flush=True)


if __name__ == "__main__":
    main()

"""The estimate of memory against published counts, and against what is alive during an update."""

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from remote_trainer.inference.lm_head import logprobs_and_entropies
from remote_trainer.inference.packed_rows import ROW_TOKENS, continuation_logprobs
from remote_trainer.inference.padded_rows import padded
from remote_trainer.inference.prefix_tree import BLOCK_TOKENS as BLOCK_OF_ENGINE
from remote_trainer.models.attention import use_shared_attention
from remote_trainer.planning.memory import (
    ADAPTER_BYTES,
    BATCH_TOKENS,
    BLOCK_TOKENS,
    GIB,
    NF4_BYTES,
    PACKED_ROW_TOKENS,
    SHAPES,
    Load,
    Shape,
    packed_update,
    padded_update,
    plan_transformers,
    plan_unsloth,
    plan_vllm,
)
from remote_trainer.records import Continuation

ROOT = Path(__file__).parents[3]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("name", "parameters", "adapter"),
    [
        ("Qwen2.5-0.5B", 494_032_768, 8_798_208),
        ("Qwen2.5-1.5B", 1_543_714_304, 18_464_768),
        ("Qwen2.5-3B", 3_085_938_688, 29_933_568),
        ("Qwen2.5-7B", 7_615_616_512, 40_370_176),
        ("Llama-3.1-8B", 8_030_261_248, 41_943_040),
    ],
)
def test_parameters_are_those_that_are_published(name: str, parameters: int, adapter: int) -> None:
    assert SHAPES[name].parameters == parameters
    assert SHAPES[name].adapter_parameters(16) == adapter


def test_numbers_that_stand_elsewhere_in_the_code() -> None:
    from remote_trainer.config.schema import ScoringSettings, TrainingSettings

    assert (PACKED_ROW_TOKENS, BLOCK_TOKENS) == (ROW_TOKENS, BLOCK_OF_ENGINE)
    assert ScoringSettings().max_tokens_per_batch == BATCH_TOKENS
    config = TrainingSettings()
    assert Load() == Load(
        config.max_prompt_length,
        config.max_completion_length,
        config.num_generations,
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        r=16,
    )


def test_bytes_of_a_4_bit_weight() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight, state = functional.quantize_4bit(
        torch.randn(2048, 2048), quant_type="nf4", compress_statistics=True
    )
    parts = (weight, state.absmax, state.state2.absmax)
    assert sum(part.nbytes for part in parts) / 2048**2 == pytest.approx(NF4_BYTES, rel=1e-6)


DESIGN = Load(completion_tokens=512, micro_steps=4)


def test_plans_of_llama_by_hand() -> None:
    llama = SHAPES["Llama-3.1-8B"]
    projections = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    rest = 2 * 128256 * 4096 + 65 * 4096
    full, cache = plan_transformers(llama, DESIGN, in_4bit=False), 2 * 32 * 1024 * 2
    assert full.weights == 2 * (projections + rest) == 2 * llama.parameters
    assert full.adapter == 18 * 41_943_040
    assert full.sampling == 8192 * cache + 0.1 * GIB
    assert full.total == full.weights + full.adapter + full.update + GIB
    small = plan_transformers(llama, DESIGN, in_4bit=True)
    assert small.weights == projections * (0.5 + 1 / 64 + 1 / 4096) + 2 * rest
    assert small.update - full.update == 2 * 4096 * 14336
    beside = plan_vllm(llama, DESIGN)
    assert beside.sampling == full.weights + (4 * 512 + 32 * 512) * cache + 1.5 * GIB
    assert beside.update == full.update
    assert plan_unsloth(llama, DESIGN, in_4bit=True).sampling == beside.sampling - full.weights


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of tensors that are made under it, now and at most."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        there = [*model.parameters(), *model.buffers()]
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in there}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name not in self._sizes:
            self._sizes[name] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, name)

    def _forget(self, name: int) -> None:
        self.now -= self._sizes.pop(name)


def adapted(shape: Shape, r: int) -> Any:
    """A model of this shape as it trains on a GPU: bfloat16 base, float32 adapter, checkpoints."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate,
        tie_word_embeddings=shape.tied,
    )
    base = Qwen2ForCausalLM(config).to(torch.bfloat16)
    use_shared_attention(base)
    assert sum(parameter.numel() for parameter in base.parameters()) == shape.parameters
    lora = LoraConfig(r=r, lora_alpha=16, target_modules=SEVEN, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    return model


def most_alive(shape: Shape, load: Load, packed: bool) -> float:
    """Bytes at the peak of one micro-step, but for the adapter's gradients and bfloat16 copies."""
    model = adapted(shape, load.r)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == shape.adapter_parameters(load.r)
    ids = torch.randint(0, shape.vocabulary, (9, load.completion_tokens)).tolist()
    prompt = torch.randint(0, shape.vocabulary, (load.prompt_tokens,)).tolist()
    rows = [Continuation(tuple(prompt), tuple(each)) for each in ids[: load.completions]]
    alive = Alive(model)
    with alive:
        with torch.autocast("cpu", torch.bfloat16):
            logps = packed_logps(model, rows) if packed else padded_logps(model, rows)
        logps.mean().backward()  # type: ignore[no-untyped-call]
    return float(alive.most - trained * (4 + 2))


def packed_logps(model: Any, rows: list[Continuation]) -> torch.Tensor:
    return continuation_logprobs(model, rows, len(rows[0].ids), temperature=1.0)[0]


def padded_logps(model: Any, rows: list[Continuation]) -> torch.Tensor:
    """Stock passes over a row per completion, and our head."""
    ids, mask, places = padded([r.context + r.ids for r in rows], 0, torch.device("cpu"), "left")
    causal = model.get_base_model()
    found = causal.model(input_ids=ids, attention_mask=mask, position_ids=places)
    start = len(rows[0].context)
    hidden = found.last_hidden_state[:, start - 1 : -1].reshape(-1, causal.config.hidden_size)
    target = ids[:, start:].reshape(-1)
    return logprobs_and_entropies(hidden, causal.get_output_embeddings(), target, 1.0)[0]


MEASURED = [
    # The proportions of Qwen2.5-0.5B and of Llama-3.1-8B, and a prompt that is much or little.
    (Shape(448, 2, 7, 1, 64, 2432, 512, tied=True, query_bias=True), Load(256, 64)),
    (Shape(512, 2, 4, 1, 128, 1792, 512, tied=False, query_bias=True), Load(64, 128)),
    (Shape(256, 3, 4, 2, 64, 1024, 512, tied=True, query_bias=True), Load(64, 128, 4)),
]


@pytest.mark.parametrize(("shape", "load"), MEASURED)
def test_an_update_holds_what_the_formula_says(shape: Shape, load: Load) -> None:
    assert packed_update(shape, load) == pytest.approx(most_alive(shape, load, True), rel=0.08)
    assert padded_update(shape, load) == pytest.approx(most_alive(shape, load, False), rel=0.08)


def test_rows_of_4096_tokens_go_through_one_by_one() -> None:
    shape = Shape(64, 10, 1, 1, 64, 128, 512, tied=True)
    one_row, two_rows = Load(512, 512, completions=7), Load(512, 512, completions=8)
    # The eighth completion stands in a second row, with its prompt: 1024 tokens more to keep the
    # inputs of 10 layers of, and no more in flight.
    gap = packed_update(shape, two_rows) - packed_update(shape, one_row)
    assert gap == 1024 * 10 * 64 * 2


def test_the_page_shows_what_the_script_prints() -> None:
    design = ["--completion-tokens", "512", "--micro-steps", "4"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/gpu_memory.py", *design],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    assert ADAPTER_BYTES == 18

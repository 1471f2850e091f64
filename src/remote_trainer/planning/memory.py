"""Memory of a run on a GPU: an estimate from shapes and settings; loads nothing.

docs/gpu.md explains the terms and their sources. The term of an update was measured on a CPU,
tensor by tensor (tests/unit/planning/test_memory_plan.py); nothing was measured on a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30

# NormalFloat of 4 bits with double quantisation (QLoRA, arXiv 2305.14314, section 3): a scale of
# 8 bits per 64 weights, and one of 32 bits per 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
BF16_BYTES = 2
# Adapter in float32: weight, gradient, two moments of AdamW, and its copy for bfloat16 products.
ADAPTER_BYTES = 4 + 4 + 8 + 2

PACKED_ROW_TOKENS = 4096  # inference/packed_rows.py: most tokens in one pass of an update
BLOCK_TOKENS = 128
"""Queries that share one copy of their keys on a CPU; on a GPU more do, which takes less."""
BATCH_TOKENS = 8192  # scoring.max_tokens_per_batch: most tokens that are sampled at once

# Assumed, not measured: CUDA context and libraries; vLLM without weights and cache (captured
# graphs, buffers); logits of one chunk and their temporaries.
CONTEXT_BYTES = 1.0 * GIB
VLLM_BYTES = 1.5 * GIB
HEAD_BYTES = 0.1 * GIB


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with grouped-query attention and a gated MLP, from config.json."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether head and embedding share their weight."""
    query_bias: bool = False
    """Whether queries, keys and values have a bias."""

    @property
    def query(self) -> int:
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        return self.key_heads * self.head_size

    @property
    def linear_parameters(self) -> int:
        """Weights of the seven projections, which can be stored in 4 bits."""
        attention = self.hidden * (2 * self.query + 2 * self.key)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def other_parameters(self) -> int:
        """Embedding, head, norms and biases, which stay in 16 bits."""
        bias = self.query + 2 * self.key if self.query_bias else 0
        norms = self.layers * (2 * self.hidden + bias) + self.hidden
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + norms

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, r: int) -> int:
        """LoRA on the seven projections: r x (inputs + outputs) of each (arXiv 2106.09685)."""
        h, q, k, i = self.hidden, self.query, self.key, self.intermediate
        return self.layers * r * ((h + q) + 2 * (h + k) + (q + h) + 2 * (h + i) + (i + h))

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in 16 bits."""
        return 2 * self.layers * self.key * BF16_BYTES


@dataclass(frozen=True)
class Load:
    """The workload of one update; the defaults are those of the config."""

    prompt_tokens: int = 512
    completion_tokens: int = 64
    completions: int = 8
    """Completions per prompt."""
    micro_batch: int = 1
    """Prompts per micro-step."""
    micro_steps: int = 2
    r: int = 16
    batch_tokens: int = BATCH_TOKENS
    """Maximum tokens sampled at once by the transformers engine."""


@dataclass(frozen=True)
class Plan:
    """Bytes, by purpose."""

    weights: float
    adapter: float
    """Adapter, gradients, optimizer."""
    sampling: float
    """KV cache while sampling; with vLLM also its own buffers."""
    update: float
    """Activations and logits of one micro-step."""

    @property
    def total(self) -> float:
        """Sampling and update do not run at the same time."""
        larger = max(self.sampling, self.update)
        return self.weights + self.adapter + larger + CONTEXT_BYTES


def weights_bytes(shape: Shape, in_4bit: bool) -> float:
    linear = shape.linear_parameters * (NF4_BYTES if in_4bit else BF16_BYTES)
    return linear + shape.other_parameters * BF16_BYTES


def plan_transformers(shape: Shape, load: Load, in_4bit: bool) -> Plan:
    """The transformers engine; completions share their prompt."""
    return Plan(
        weights=weights_bytes(shape, in_4bit),
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=_sampled_at_once(load) * shape.cache_bytes + HEAD_BYTES,
        update=packed_update(shape, load) + HEAD_BYTES + _unpacked_weight(shape, in_4bit),
    )


def plan_vllm(shape: Shape, load: Load) -> Plan:
    """The transformers engine with vLLM in the same process, which sleeps during updates.

    vLLM has a second copy of the weights; both are in 16 bits.
    """
    weights = weights_bytes(shape, in_4bit=False)
    return Plan(
        weights=weights,
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=weights + _vllm_cache(shape, load) + VLLM_BYTES,
        update=packed_update(shape, load) + HEAD_BYTES,
    )


def plan_unsloth(shape: Shape, load: Load, in_4bit: bool) -> Plan:
    """Unsloth with vLLM in standby: one copy of the weights; cache and update alternate.

    The update is estimated for stock kernels on padded rows, an upper bound for Unsloth's.
    """
    return Plan(
        weights=weights_bytes(shape, in_4bit),
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=_vllm_cache(shape, load) + VLLM_BYTES,
        update=padded_update(shape, load) + HEAD_BYTES + _unpacked_weight(shape, in_4bit),
    )


def _sampled_at_once(load: Load) -> int:
    """Tokens in the cache at the end of a sampling batch of the transformers engine."""
    one = load.prompt_tokens + load.completion_tokens
    return max(one, min(load.batch_tokens, _sampled_tokens(load)))


def _vllm_cache(shape: Shape, load: Load) -> float:
    """All completions of an update at once; with less memory vLLM queues some of them."""
    return _sampled_tokens(load) * shape.cache_bytes


def _sampled_tokens(load: Load) -> int:
    """All tokens of an update, with each prompt counted once."""
    prompts = load.micro_batch * load.micro_steps
    return prompts * (load.prompt_tokens + load.completions * load.completion_tokens)


def _unpacked_weight(shape: Shape, in_4bit: bool) -> float:
    """The largest matrix in 16 bits: 4-bit weights are dequantised one at a time."""
    return shape.hidden * shape.intermediate * BF16_BYTES if in_4bit else 0.0


def packed_update(shape: Shape, load: Load) -> float:
    """Activations of a micro-step with packed rows and one checkpoint per layer."""
    per_row = max(1, (PACKED_ROW_TOKENS - load.prompt_tokens) // load.completion_tokens)
    completions = load.micro_batch * load.completions
    rows = -(-completions // per_row)
    tokens = rows * load.prompt_tokens + completions * load.completion_tokens
    longest = load.prompt_tokens + min(per_row, completions) * load.completion_tokens
    visible = load.prompt_tokens + load.completion_tokens / 2
    layer = _plain_layer(shape) + _tree_attention(shape, visible)
    return _checkpoints(shape, tokens) + longest * layer


def padded_update(shape: Shape, load: Load) -> float:
    """The same with one row per completion, including its prompt."""
    length = load.prompt_tokens + load.completion_tokens
    tokens = load.micro_batch * load.completions * length
    layer = _plain_layer(shape) + 4 * shape.key
    return _checkpoints(shape, tokens) + tokens * layer


def _checkpoints(shape: Shape, tokens: int) -> float:
    """The input of every layer, kept for recomputation (arXiv 1604.06174)."""
    return tokens * shape.layers * shape.hidden * BF16_BYTES


def _plain_layer(shape: Shape) -> float:
    """Bytes per token during the backward pass of one layer, without attention.

    Fitted to the live tensors at the peak; see the test.
    """
    return 27 * shape.hidden + 14 * shape.intermediate + 7 * shape.query


def _tree_attention(shape: Shape, visible: float) -> float:
    """Bytes per token kept by TreeAttention: keys and values of each block, and its mask."""
    copies = 6 * shape.key * visible / BLOCK_TOKENS
    return copies + 2 * shape.heads / shape.key_heads * visible


# As published in the config.json of each model.
SHAPES: Mapping[str, Shape] = {
    "Qwen2.5-0.5B": Shape(896, 24, 14, 2, 64, 4864, 151936, tied=True, query_bias=True),
    "Qwen2.5-1.5B": Shape(1536, 28, 12, 2, 128, 8960, 151936, tied=True, query_bias=True),
    "Qwen2.5-3B": Shape(2048, 36, 16, 2, 128, 11008, 151936, tied=True, query_bias=True),
    "Qwen2.5-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, tied=False, query_bias=True),
    "Llama-3.1-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
}

"""How much memory a run on a GPU takes: an estimate from shapes and settings, nothing is loaded.

What the terms are and where they come from is told in docs/gpu.md. The term of an update was
measured on a CPU, tensor by tensor (tests/unit/planning/test_memory_plan.py); nothing was on a GPU.
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
BLOCK_TOKENS = 128  # inference/prefix_tree.py: queries that share one copy of their keys
BATCH_TOKENS = 8192  # scoring.max_tokens_per_batch: most tokens that are sampled at once

# Allowances, not measured: context and libraries of CUDA; what vLLM needs beside weights and cache
# (captured graphs, its own buffers); logits of one chunk and what is made of them.
CONTEXT_BYTES = 1.0 * GIB
VLLM_BYTES = 1.5 * GIB
HEAD_BYTES = 0.1 * GIB


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with grouped keys and a gated MLP, as its config.json has them."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""
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
    """What one update asks for; the defaults are those of the config."""

    prompt_tokens: int = 512
    completion_tokens: int = 512
    completions: int = 8
    """Completions per prompt."""
    micro_batch: int = 1
    """Prompts per micro-step."""
    micro_steps: int = 4
    r: int = 16
    batch_tokens: int = BATCH_TOKENS
    """Most tokens that our own sampling has under way at once."""


@dataclass(frozen=True)
class Plan:
    """Bytes, by what they are for."""

    weights: float
    adapter: float
    """Adapter, gradients, optimizer."""
    sampling: float
    """Keys and values while completions are sampled; with vLLM also what it holds of its own."""
    update: float
    """Activations and logits of one micro-step."""

    @property
    def total(self) -> float:
        """Sampling and update take turns."""
        turns = max(self.sampling, self.update)
        return self.weights + self.adapter + turns + CONTEXT_BYTES


def weights_bytes(shape: Shape, in_4bit: bool) -> float:
    linear = shape.linear_parameters * (NF4_BYTES if in_4bit else BF16_BYTES)
    return linear + shape.other_parameters * BF16_BYTES


def plan_transformers(shape: Shape, load: Load, in_4bit: bool) -> Plan:
    """Everything by the transformers engine; prompts are shared by their completions."""
    return Plan(
        weights=weights_bytes(shape, in_4bit),
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=_sampled_at_once(load) * shape.cache_bytes + HEAD_BYTES,
        update=packed_update(shape, load) + HEAD_BYTES + _unpacked_weight(shape, in_4bit),
    )


def plan_vllm(shape: Shape, load: Load) -> Plan:
    """The transformers engine with vLLM in the same process, which sleeps during updates.

    vLLM has a second copy of the weights, and both are in 16 bits.
    """
    weights = weights_bytes(shape, in_4bit=False)
    return Plan(
        weights=weights,
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=weights + _vllm_cache(shape, load) + VLLM_BYTES,
        update=packed_update(shape, load) + HEAD_BYTES,
    )


def plan_unsloth(shape: Shape, load: Load, in_4bit: bool) -> Plan:
    """Unsloth with its vLLM in standby: one copy of the weights, cache and update take turns.

    The update is that of stock kernels on padded rows, which Unsloth's stay below.
    """
    return Plan(
        weights=weights_bytes(shape, in_4bit),
        adapter=shape.adapter_parameters(load.r) * ADAPTER_BYTES,
        sampling=_vllm_cache(shape, load) + VLLM_BYTES,
        update=padded_update(shape, load) + HEAD_BYTES + _unpacked_weight(shape, in_4bit),
    )


def _sampled_at_once(load: Load) -> int:
    """Tokens in the cache when a batch of our own sampling ends."""
    one = load.prompt_tokens + load.completion_tokens
    return max(one, min(load.batch_tokens, _sampled_tokens(load)))


def _vllm_cache(shape: Shape, load: Load) -> float:
    """All completions of an update at once; with less, vLLM lets some of them wait."""
    return _sampled_tokens(load) * shape.cache_bytes


def _sampled_tokens(load: Load) -> int:
    """All of an update, a prompt once for all its completions."""
    prompts = load.micro_batch * load.micro_steps
    return prompts * (load.prompt_tokens + load.completions * load.completion_tokens)


def _unpacked_weight(shape: Shape, in_4bit: bool) -> float:
    """The largest matrix in 16 bits: 4-bit weights are spread out one at a time."""
    return shape.hidden * shape.intermediate * BF16_BYTES if in_4bit else 0.0


def packed_update(shape: Shape, load: Load) -> float:
    """Activations of a micro-step: prompts with their completions in rows, a checkpoint a layer."""
    per_row = max(1, (PACKED_ROW_TOKENS - load.prompt_tokens) // load.completion_tokens)
    completions = load.micro_batch * load.completions
    rows = -(-completions // per_row)
    tokens = rows * load.prompt_tokens + completions * load.completion_tokens
    longest = load.prompt_tokens + min(per_row, completions) * load.completion_tokens
    visible = load.prompt_tokens + load.completion_tokens / 2
    layer = _plain_layer(shape) + _tree_attention(shape, visible)
    return _checkpoints(shape, tokens) + longest * layer


def padded_update(shape: Shape, load: Load) -> float:
    """The same with a row for every completion, its prompt with it."""
    length = load.prompt_tokens + load.completion_tokens
    tokens = load.micro_batch * load.completions * length
    layer = _plain_layer(shape) + 4 * shape.key
    return _checkpoints(shape, tokens) + tokens * layer


def _checkpoints(shape: Shape, tokens: int) -> float:
    """The input of every layer, kept to compute the rest again (arXiv 1604.06174)."""
    return tokens * shape.layers * shape.hidden * BF16_BYTES


def _plain_layer(shape: Shape) -> float:
    """Bytes a token while the backward pass is in one layer, but for its attention.

    Fitted to what is alive at the peak; see the test.
    """
    return 27 * shape.hidden + 14 * shape.intermediate + 7 * shape.query


def _tree_attention(shape: Shape, visible: float) -> float:
    """Bytes a token of what TreeAttention keeps: keys and values of each block, and its mask."""
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

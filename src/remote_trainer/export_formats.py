"""Facts about each export format: name, folder, requirements. `export` adds the functions.

In a low layer, because config and run folder need them, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ADAPTER = "adapter"
"""The folder of the trained adapter, which is also an export."""
_NOTHING = "nothing beyond the requirements of training"
_LLAMA_CPP = (
    "the extra `gguf`, which contains llama.cpp's converter, quantiser and server. Instead of "
    "this converter, `LLAMA_CPP_DIR` can name a checkout of llama.cpp; instead of this quantiser, "
    "`llama-quantize` can be on the PATH"
)


@dataclass(frozen=True)
class ExportFormat:
    """Facts about a format that need no model."""

    title: str
    """Heading of the model card."""
    folder: str
    """Name of the folder inside the run folder."""
    written: str
    needs: str
    proven: str
    """The program that reloads it for verification."""
    disk_factor: int
    """Maximum disk space while writing, as a multiple of the 16-bit base weights."""
    memory_factor: int = 1
    """Maximum memory while writing and verifying, in the same multiples; 0: as in training."""
    in_config: bool = True
    """Can be requested by name; otherwise it is written along with another format."""


EXPORT_FORMATS: dict[str, ExportFormat] = {
    "lora": ExportFormat(
        title="LoRA adapter",
        folder=ADAPTER,
        written="PEFT adapter, tokenizer and chat template",
        needs=_NOTHING,
        proven="transformers with PEFT",
        disk_factor=0,
        memory_factor=0,
    ),
    "lora_gguf": ExportFormat(
        title="LoRA adapter",
        folder=ADAPTER,
        written="the adapter alone, as `adapter-<type>.gguf`",
        needs=_LLAMA_CPP,
        proven="llama.cpp, beside a 16-bit GGUF of the base",
        disk_factor=3,  # a GGUF of the base, which may be dequantised in float32 first
        in_config=False,
    ),
    "merged_16bit": ExportFormat(
        title="Merged model in 16 bits",
        folder="merged_16bit",
        written="the merged model in bfloat16 (float16 if the base is), as safetensors",
        needs=_NOTHING,
        proven="transformers",
        disk_factor=2,  # the merged weights one by one, then as shards
    ),
    "merged_4bit": ExportFormat(
        title="Merged model in 4 bits (bitsandbytes NF4)",
        folder="merged_4bit",
        written="the merged model in NF4 with double quantisation, as safetensors",
        needs="bitsandbytes, included in the extra `train`",
        proven="transformers with bitsandbytes",
        disk_factor=2,
    ),
    "gguf": ExportFormat(
        title="Merged model as GGUF",
        folder="gguf",
        written="the merged model as `model-<type>.gguf`",
        needs=_LLAMA_CPP,
        proven="llama.cpp",
        # A float32 merge, a 16-bit intermediate file, the file itself, and the same file made from
        # the base.
        disk_factor=5,
    ),
}


def names_for_config() -> tuple[str, ...]:
    """The formats that a config or `export --format` can name."""
    return tuple(name for name, each in EXPORT_FORMATS.items() if each.in_config)


PROOF_KEYS: Mapping[str, str] = {
    "format": "the export format",
    "merge_base": "`dequantized` or `original`: what the adapter of a 4-bit run was merged into; "
    "null for other runs",
    "adapter_sha256": "sha256 of the adapter's weights",
    "verdict": "PASS, FAIL, or INCONCLUSIVE: training changed less than this format rounds",
    "checks": "each check and whether it passed",
    "questions": "held-out rows that were compared",
    "tokens": "tokens of their answers",
    "slope": "change of log-probs in the export divided by that in the trained model; 1 is equal, "
    "0 is the base",
    "slope_wanted": "lowest and highest slope that passes",
    "distance_mean": "mean distance of the log-probs to the trained model, in nats per token",
    "distance_largest": "the largest such distance",
    "distance_limit": "the largest mean distance that passes",
    "format_noise_rms": "root mean square of what this format changes in the base, in nats",
    "policy_base_gap_rms": "root mean square of what training changed, in nats",
    "likeliest_agree": "share of positions with the same most likely token",
    "greedy_agree": "share of rows with the same greedy answer",
    "eos_ids": "end-of-sequence ids of the export",
    "ignored_window": "tokens of a sliding window that llama.cpp ignores; only if it does",
    "reason": "why the export could not be loaded; only then",
}
"""Key of proof.json -> meaning."""

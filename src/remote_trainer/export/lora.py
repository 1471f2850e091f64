"""The adapter as a PEFT folder with tokenizer and chat template."""

from pathlib import Path

from remote_trainer.engines.protocol import Backend
from remote_trainer.faults import fault_point
from remote_trainer.run_dir import new_folder


def export_lora(backend: Backend, target: Path) -> Path:
    """Write ``target`` completely or not at all; returns it."""
    fault_point("export:lora")
    with new_folder(target) as folder:
        backend.save_adapter(folder)
        backend.prompt_tokenizer.tokenizer.save_pretrained(folder)
        fault_point("export:lora:written")
    return target

"""The yardstick of the learning study: supervised fine-tuning on the same rows by stock TRL.

python benchmarks/learning_sft.py config.json [processor seconds]

With processor seconds, training ends when its steps have taken as many, `seconds_step` are
processor seconds, too, and the adapter is written where a run has it.
"""

import sys
import time
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from remote_trainer.config import load_config
from remote_trainer.data import load_data
from remote_trainer.export.lora import export_lora
from remote_trainer.models.resolve import resolve_model
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.records import AdapterSettings
from remote_trainer.run_dir import RunDir, append_jsonl
from remote_trainer.trainer import checkpoint

UNLIMITED_STEPS = 1_000_000


class Until(TrainerCallback):  # type: ignore[misc]
    """Ends training after so many processor seconds, and logs those of every step."""

    def __init__(self, folder: RunDir, processor_seconds: float) -> None:
        self._folder = folder
        self._left = processor_seconds
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.process_time() - self._started
        append_jsonl(self._folder.metrics, {"step": state.global_step, "seconds_step": seconds})
        self._left -= seconds
        control.should_training_stop = self._left <= 0


class Keep(TrainerCallback):  # type: ignore[misc]
    """Adapters and seconds where the other arms have them."""

    def __init__(self, folder: RunDir) -> None:
        self._folder = folder
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step, seconds = state.global_step, time.perf_counter() - self._started
        append_jsonl(self._folder.metrics, {"step": step, "seconds_step": seconds})
        if step % args.save_steps == 0:
            target = self._folder.checkpoint(step)
            target.mkdir(parents=True, exist_ok=True)
            checkpoint.write_adapter(target, model)
            checkpoint.write_manifest(target, {"step": step})


def main(config_file: str, processor_seconds: str | None = None) -> None:
    """As many updates of as many rows as the others have completions, or as much time."""
    config = load_config(config_file)
    training, folder = config.training, RunDir(config.output_dir)
    folder.metrics.unlink(missing_ok=True)
    backend = load_backend(resolve_model(config.model.name), config)
    lora = config.lora
    backend.add_adapter(
        AdapterSettings(lora.r, lora.alpha, 0.0, lora.target_modules, seed=training.seed)
    )
    system = {"role": "system", "content": config.with_data().system_prompt}
    rows = [
        {
            "prompt": [system, {"role": "user", "content": row.prompt}],
            "completion": [{"role": "assistant", "content": row.fields["answer"]}],
        }
        for row in load_data(config).train
    ]
    keep: TrainerCallback = Keep(folder)
    if processor_seconds is not None:
        keep = Until(folder, float(processor_seconds))
    arguments = SFTConfig(
        output_dir=str(folder.root / "trl"),
        max_steps=UNLIMITED_STEPS if processor_seconds else training.max_steps,
        per_device_train_batch_size=training.completions_per_update,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        save_steps=training.save_steps,
        report_to="none",
        seed=training.seed,
        disable_tqdm=True,
    )
    SFTTrainer(
        model=backend.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=backend.prompt_tokenizer.tokenizer,
        callbacks=[keep],
    ).train()
    if processor_seconds is not None:
        export_lora(backend, folder.adapter)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""TRL's GRPOTrainer with our rewards, our checkpoints and our log; changed at named hooks only."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from remote_trainer.config import RunConfig
from remote_trainer.engine.backend import Backend
from remote_trainer.errors import NonFiniteLossError, RunInterrupted
from remote_trainer.records import EncodedRow, Prompt, Rollout
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer.metrics import OnLine, RunLog
from remote_trainer.trainer.stop import StopRequest
from remote_trainer.trainer.trl_settings import trl_settings


def train(
    backend: Backend,
    reward: RewardFunction,
    rows: Sequence[EncodedRow],
    config: RunConfig,
    folder: RunDir,
    resume_from: Path | None = None,
    on_line: OnLine = lambda line, updates: None,
) -> None:
    """Train the adapter of ``backend`` in place; ``on_line`` sees every line of metrics.jsonl
    and the number of updates of the whole run.

    Raises RunInterrupted after SIGINT or SIGTERM (a checkpoint is there), NonFiniteLossError and
    NonFiniteRewardError before a bad number reaches the weights.
    """
    log = RunLog(folder, on_line)
    stop = StopRequest()
    trainer = RewardTrainer(backend, reward, rows, config, folder, log, [stop])
    start = checkpoint.verify(resume_from)["step"] if resume_from else 0
    log.continue_after(start)
    checkpoint.drop_after(folder, start)
    with stop:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.exit_code is not None and trainer.state.global_step < trainer.state.max_steps:
        raise RunInterrupted(
            f"stopped by a signal after update {trainer.state.global_step}; a checkpoint is in "
            f"{folder.checkpoints}, and the same command goes on from there",
            stop.exit_code,
        )


class RewardTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO on rows whose prompts are already ids, with a reward that sees exactly those ids."""

    def __init__(
        self,
        backend: Backend,
        reward: RewardFunction,
        rows: Sequence[EncodedRow],
        config: RunConfig,
        folder: RunDir,
        log: RunLog,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._rows = rows
        self._prompt_ids = {_key(row.row.prompt): list(row.prompt_ids) for row in rows}
        self._folder = folder
        self._run_log = log
        self._reward = reward
        self._config = config
        settings = trl_settings(config, cuda=torch.cuda.is_available())
        super().__init__(
            model=backend.model,
            reward_funcs=[self._judge],
            args=GRPOConfig(output_dir=str(folder), **settings),
            train_dataset=Dataset.from_list(
                [{"prompt": row.row.prompt, "row": i} for i, row in enumerate(rows)]
            ),
            processing_class=backend.codec.tokenizer,
            callbacks=[log, FiniteGradients(), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        if "ref" in self.model.peft_config:
            # TRL copies a given adapter as its reference. Ours starts as zero, so switching it
            # off is the same model for less memory.
            self.model.delete_adapter("ref")

    def _judge(self, row: Sequence[int], completion_ids: Sequence[list[int]], **_: Any) -> Any:
        """The one reward function TRL sees; ``row`` is our index into the data."""
        started = time.perf_counter()
        rows = [self._rows[i] for i in row]
        samples = [
            self._reward.sample(r.row.prompt, r.prompt_ids, tuple(ids), r.row.fields)
            for r, ids in zip(rows, completion_ids, strict=True)
        ]
        judgements = self._reward.judge(samples)
        self._run_log.record(
            Rollout(
                step=self.state.global_step + 1,
                prompts=[r.row.prompt for r in rows],
                completions=[sample.completion_text for sample in samples],
                completion_ids=[sample.completion_ids for sample in samples],
                answers=[r.row.fields.get(self._config.answer_field) for r in rows],
                judgements=judgements,
                ended=[len(s.content_ids) < len(s.completion_ids) for s in samples],
            )
        )
        self._run_log.stopwatch.score += time.perf_counter() - started
        return [judgement.reward for judgement in judgements]

    def _tokenize_prompts(
        self, prompts: Sequence[Prompt]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The ids the data room made; TRL would render and tokenise again."""
        return [self._prompt_ids[_key(prompt)] for prompt in prompts], None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.perf_counter()
        output = super()._generate(prompts)
        self._run_log.stopwatch.generate += time.perf_counter() - started
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Log-probs through TRL's tiled LM head, which never builds the full logits.

        Stock TRL takes this path with Liger only. Wrapped models keep the stock path: unwrapping
        would skip their gradient synchronisation.
        """
        if compute_aux_loss or self.accelerator.num_processes > 1:
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **kwargs,
            )
        model = self.accelerator.unwrap_model(model)
        size = batch_size or input_ids.size(0)
        parts = [
            self._chunked_logps(
                model,
                input_ids[start : start + size],
                attention_mask[start : start + size],
                logits_to_keep,
                compute_entropy=compute_entropy,
                **kwargs,
            )
            for start in range(0, input_ids.size(0), size)
        ]
        entropies = torch.cat([part[1] for part in parts]) if compute_entropy else None
        return torch.cat([part[0] for part in parts]), entropies, None

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        """Stock order counts the epochs of this process, so a resumed run would see another one."""
        return EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            epoch=lambda: math.floor((self.state.epoch or 0.0) + 1e-6),
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        target = self._folder.checkpoint(self.state.global_step)
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.iterdir():
            stale.unlink()
        checkpoint.write_adapter(target, self.accelerator.unwrap_model(self.model))
        checkpoint.write_state(target, self.optimizer, self.lr_scheduler, {"_step": self._step})
        self.state.save_to_json(str(target / checkpoint.TRAINER_STATE))
        checkpoint.write_manifest(target, {"step": self.state.global_step})
        checkpoint.prune(self._folder, self._config.training.keep_checkpoints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.read_adapter(Path(resume_from_checkpoint), model or self.model)

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            counters = checkpoint.read_state(
                Path(checkpoint_folder), self.optimizer, self.lr_scheduler
            )
            self._step = counters["_step"]

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.restore_random(Path(checkpoint_folder))


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's order of prompts, with a permutation that depends on seed and epoch alone."""

    def __init__(self, *args: Any, seed: int, epoch: Callable[[], int], **kwargs: Any) -> None:
        super().__init__(*args, seed=seed, **kwargs)
        self._epoch = epoch

    def __iter__(self) -> Any:
        self.generator.manual_seed(self.seed * 1_000_003 + self._epoch())
        return super().__iter__()


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """Stops before the optimizer turns a NaN gradient into NaN weights."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        gradients = (p.grad for p in model.parameters() if p.grad is not None)
        if not all(gradient.isfinite().all() for gradient in gradients):
            raise NonFiniteLossError(
                f"update {state.global_step + 1}: a gradient is not finite; the weights were not "
                "changed. Lower training.learning_rate and go on from the last checkpoint"
            )


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True)

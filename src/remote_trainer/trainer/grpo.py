"""TRL's GRPOTrainer with our rewards, checkpoints and log, changed only by overridden hooks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.utils import RepeatSampler

from remote_trainer.activity import ACTIVITY
from remote_trainer.config import RunConfig
from remote_trainer.engines.base_weights import BaseWeights
from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation.answers import some_of
from remote_trainer.evaluation.probe import Probe
from remote_trainer.faults import fault_point
from remote_trainer.models.modes import learnt_in_float32
from remote_trainer.processes import gathered, is_main, own_part
from remote_trainer.records import EncodedRow, Rollout
from remote_trainer.rewards import LogprobCache, RewardFunction
from remote_trainer.rewards.function_log import FunctionLog, together
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.checkpoint_hooks import CheckpointHooks
from remote_trainer.trainer.finite_gradients import FiniteGradients
from remote_trainer.trainer.groups import GroupFilter, signal_values, spread
from remote_trainer.trainer.guard_callback import GuardCallback
from remote_trainer.trainer.loss_mask import LossMaskTrainer
from remote_trainer.trainer.prompt_order import EpochSampler, numbered_rows
from remote_trainer.trainer.rollout import RolloutTrainer
from remote_trainer.trainer.run_log import RunLog, seconds_now
from remote_trainer.trainer.stop import SameDecisions
from remote_trainer.trainer.trl_arguments import require_settings, trl_arguments
from remote_trainer.trainer.trl_settings import trl_settings


class RewardTrainer(CheckpointHooks, LossMaskTrainer, RolloutTrainer):
    """GRPO on rows with tokenised prompts; the reward gets exactly the ids of the model."""

    def __init__(
        self,
        backend: Backend,
        reward: RewardFunction,
        rows: Sequence[EncodedRow],
        config: RunConfig,
        folder: RunDir,
        log: RunLog,
        callbacks: Sequence[TrainerCallback] = (),
        held_out: Sequence[EncodedRow] = (),
        vllm: bool = False,
    ) -> None:
        self._rows = rows
        self._backend = backend
        self._folder = folder
        self._run_log = log
        self._reward = reward
        self._config = config
        self._scores = LogprobCache()
        self._group_filter = GroupFilter(config.training.group_filter)
        settings = trl_settings(config, cuda=torch.cuda.is_available(), vllm=vllm)
        # TRL casts an adapter on 4-bit weights to bfloat16.
        with learnt_in_float32(backend.model):
            super().__init__(
                model=backend.model,
                reward_funcs=[self._judge],
                args=trl_arguments(settings, folder, backend.rewrites_trl),
                train_dataset=numbered_rows(len(rows)),
                processing_class=backend.prompt_tokenizer.tokenizer,
                callbacks=[log, FiniteGradients(), *callbacks],
            )
        require_settings(self.args, settings)
        self._base = BaseWeights(self.model)
        self.remove_callback(PrinterCallback)
        if "ref" in self.model.peft_config:
            # TRL copies a loaded adapter as its reference model. Ours is the model without adapter,
            # even if training continues an adapter (docs/continuing.md).
            self.model.delete_adapter("ref")
        probe = self._new_probe(held_out or some_of(rows))
        self.guard_callback = GuardCallback(config, folder, probe, self.model)
        self.add_callback(self.guard_callback)
        self.add_callback(SameDecisions())
        log.inspect = self.guard_callback.see_line

    def _new_probe(self, rows: Sequence[EncodedRow]) -> Probe | None:
        """The probe; None if neither the guard nor ``keep: best`` uses it."""
        config = self._config
        unused = config.guard.action == "off" and config.training.keep != "best"
        if unused or not is_main():
            return None
        return Probe(self._backend, rows, config.answer_field, *config.answer_lengths())

    def _judge(self, completion_ids: Sequence[list[int]], **trl: Any) -> list[float | None]:
        """The only reward function of TRL's trainer.

        TRL computes advantages from the returned values; the rewards go to our log. What user
        functions log goes there and, for the trackers, to TRL. The prefix ``logged/`` keeps TRL
        from averaging a user's "kl" with its own.
        """
        started, function_log = seconds_now(), FunctionLog()
        completions = self._completions
        samples = [completion.sample for completion in completions]
        assert [list(sample.completion_ids) for sample in samples] == completion_ids, (
            "TRL passes the completions that were sampled last"
        )
        known = self._known_scores()
        with ACTIVITY.during("computing rewards"):
            fault_point("reward")
            results = self._reward.judge(samples, known, trainer_state=self.state, log=function_log)
        function_log.forward(trl.get("log_metric"), trl.get("log_extra"), prefix="logged/")
        size = self.num_generations
        groups = [results[i : i + size] for i in range(0, len(results), size)]
        kept_of_all = self._group_filter.keep(gathered([spread(group) for group in groups]))
        kept = own_part(kept_of_all)
        for i, (completion, logged) in enumerate(
            zip(completions, function_log.rows(len(completions)), strict=True)
        ):
            completion.result, completion.logged = results[i], logged
            completion.in_loss = kept[i // size] and results[i].reward is not None
        logs, sources = gathered([function_log]), gathered([known.sources])
        self._run_log.record(
            Rollout(
                step=self.state.global_step + 1,
                completions=gathered(completions),
                groups_filtered=kept_of_all.count(False) / len(kept_of_all),
                scores_from={name: sum(each[name] for each in sources) for name in sources[0]},
                logged=together(logs).means(),
            )
        )
        self._run_log.stopwatch.score += seconds_now() - started
        return [value for group in groups for value in signal_values(group)]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch; excludes completions without signal from loss, KL term and divisor."""
        self._prompts = [self._rows[line["row"]] for line in inputs]
        lines = [{"prompt": row.row.prompt} for row in self._prompts]
        batch = super()._generate_and_score_completions(lines)
        return self._mask(batch, torch.tensor([each.in_loss for each in self._completions]))

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        """TRL's sampler counts the epochs of this process: a resumed run would change the order."""
        return EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            epoch=lambda: math.floor((self.state.epoch or 0.0) + 1e-6),
        )

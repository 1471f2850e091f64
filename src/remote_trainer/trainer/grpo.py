"""TRL's GRPOTrainer with our rewards, our checkpoints and our log; changed at named hooks only."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.utils import RepeatSampler

from remote_trainer.config import RunConfig
from remote_trainer.engines.protocol import Backend
from remote_trainer.engines.vllm_sampling import draws_plainly
from remote_trainer.evaluation.answers import references_of, some_of
from remote_trainer.evaluation.probe import Probe
from remote_trainer.records import (
    Continuation,
    EncodedRow,
    Prompt,
    Rollout,
    Sample,
    Sampling,
    ScoreRequest,
    TokenIds,
)
from remote_trainer.rewards import LogprobCache, RewardFunction
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.base_weights import BaseWeights
from remote_trainer.trainer.checkpoint_hooks import CheckpointHooks
from remote_trainer.trainer.finite_gradients import FiniteGradients
from remote_trainer.trainer.groups import GroupFilter, signal_values, spread
from remote_trainer.trainer.guard_callback import GuardCallback
from remote_trainer.trainer.packed_update import SharedPrefixTrainer
from remote_trainer.trainer.prompt_order import EpochSampler, numbered_rows
from remote_trainer.trainer.run_log import RunLog
from remote_trainer.trainer.trl_arguments import require_settings, trl_arguments
from remote_trainer.trainer.trl_settings import TRL_SAMPLING, trl_settings


class RewardTrainer(CheckpointHooks, SharedPrefixTrainer):
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
        held_out: Sequence[EncodedRow] = (),
        vllm: bool = False,
    ) -> None:
        self._rows = rows
        self._backend = backend
        self._folder = folder
        self._run_log = log
        self._reward = reward
        self._config = config
        self._group_filter = GroupFilter(config.training.group_filter)
        self._sampled: list[tuple[float, ...]] | None = None
        self._drawn: dict[Continuation, tuple[float, ...]] = {}
        self._by_reference: dict[ScoreRequest, tuple[float, ...]] = {}
        self._in_loss_B: torch.Tensor | None = None
        self._row_numbers: list[int] = []
        settings = trl_settings(config, cuda=torch.cuda.is_available(), vllm=vllm)
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
            # TRL copies a given adapter as its reference. Ours is the model without adapter, also
            # where training goes on from one (docs/continuing.md).
            self.model.delete_adapter("ref")
        probe = self._new_probe(held_out or some_of(rows))
        self.guard_callback = GuardCallback(config, folder, probe, self.model)
        self.add_callback(self.guard_callback)
        log.inspect = self.guard_callback.see_line

    def _new_probe(self, rows: Sequence[EncodedRow]) -> Probe | None:
        """None where nothing would come of it."""
        config = self._config
        if config.guard.action == "off" and config.training.keep != "best":
            return None
        limit = config.evaluation.max_completion_length
        return Probe(self._backend, rows, config.answer_field, limit)

    def _judge(
        self, row: Sequence[int], completion_ids: Sequence[list[int]], **told: Any
    ) -> list[float | None]:
        """The one reward function TRL sees; ``row`` is our index into the data.

        TRL makes advantages of what this returns; the rewards themselves go to our log. What
        functions of the user's note goes there and to TRL, for the trackers, under names of their
        own, because TRL would average a second "kl" into the first.
        """
        started, noted = time.perf_counter(), FunctionLog()
        rows = [self._rows[i] for i in row]
        samples = [self._sample(i, tuple(ids)) for i, ids in zip(row, completion_ids, strict=True)]
        known = self._known_scores(samples)
        reward_results = self._reward.judge(samples, known, trainer_state=self.state, log=noted)
        noted.forward(told.get("log_metric"), told.get("log_extra"), prefix="logged/")
        size = self.num_generations
        groups = [reward_results[i : i + size] for i in range(0, len(reward_results), size)]
        kept = self._group_filter.keep([spread(group) for group in groups])
        in_loss = [
            keep and reward_result.reward is not None
            for keep, group in zip(kept, groups, strict=True)
            for reward_result in group
        ]
        self._in_loss_B = torch.tensor(in_loss)
        self._run_log.record(
            Rollout(
                step=self.state.global_step + 1,
                prompts=[r.row.prompt for r in rows],
                completions=[sample.completion_text for sample in samples],
                completion_ids=[sample.completion_ids for sample in samples],
                content_tokens=[len(sample.content_ids) for sample in samples],
                reference_tokens=[self._reference_tokens(r) for r in rows],
                answers=[r.row.fields.get(self._config.answer_field) for r in rows],
                reward_results=reward_results,
                ended=[len(s.content_ids) < len(s.completion_ids) for s in samples],
                in_loss=in_loss,
                groups_filtered=kept.count(False) / len(kept),
                scores_from=dict(known.sources),
                logged=noted.means(),
                logged_rows=noted.rows(len(samples)) if noted.columns else (),
            )
        )
        self._run_log.stopwatch.score += time.perf_counter() - started
        return [value for group in groups for value in signal_values(group)]

    def _reference_tokens(self, row: EncodedRow) -> int | None:
        """Of several accepted answers the longest."""
        accepted = references_of(row, self._config.answer_field)
        return max(
            (len(self._backend.prompt_tokenizer.encode(each)) for each in accepted), default=None
        )

    def _sample(self, row: int, completion_ids: TokenIds) -> Sample:
        r = self._rows[row]
        return self._reward.sample(
            r.row.prompt,
            r.prompt_ids,
            completion_ids,
            r.row.fields,
            r.row.source,
            r.row.tools,
        )

    def _known_scores(self, samples: Sequence[Sample]) -> LogprobCache:
        """Log-probs of these completions that generation and the KL term computed already."""
        known, reuse = LogprobCache(), self._config.scoring.reuse
        if reuse == "never":
            return known
        # vLLM's are taken as they are: the loss corrects for its kernels, a reward need not.
        exact = self.use_vllm or self._backend.samples_as_it_scores(self._sampling())
        if self._sampled is not None and (exact or reuse == "always"):
            for sample, logprobs in zip(samples, self._sampled, strict=True):
                known.add_completion("sampling", sample, "policy", logprobs)
        else:
            known.promise_completions(samples, lambda: self._ask_update(samples, known))
        for request, scores in self._by_reference.items():
            known.add("kl_term", request, scores)
        return known

    def _ask_update(self, samples: Sequence[Sample], known: LogprobCache) -> None:
        """Add what the pass of the coming update says of the completions, if it can be had."""
        started = time.perf_counter()
        rows = [Continuation(sample.prompt_ids, sample.completion_ids) for sample in samples]
        logps_BC = self._policy_logprobs(rows)
        if logps_BC is not None:
            for sample, row_C in zip(samples, logps_BC.tolist(), strict=True):
                length = len(sample.completion_ids)
                known.add_completion("update", sample, "policy", row_C[:length])
            # The time is the update's, which goes on from here.
            self._run_log.stopwatch.score -= time.perf_counter() - started

    def _tokenize_prompts(
        self, prompts: Sequence[Prompt]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The ids that the package data made; TRL would render and tokenise again."""
        assert len(prompts) == len(self._row_numbers), "TRL asks for the prompts of one batch"
        return [list(self._rows[i].prompt_ids) for i in self._row_numbers], None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.perf_counter()
        self._sampled, self._early = None, None
        self._drawn, self._by_reference = {}, {}
        output = super()._generate(prompts)
        self._run_log.stopwatch.generate += time.perf_counter() - started
        return output

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        """Our engine samples, because it keeps the log-prob of every id; TRL's would drop them.

        Fields of ``training.trl`` that our engine does not know leave sampling to TRL, and so does
        vLLM, whose log-probs TRL needs itself.
        """
        prompts = [tuple(ids) for ids in prompt_ids]
        if self.use_vllm or set(self._config.training.trl) & TRL_SAMPLING:
            # TRL merges the adapter into the base to send the sum to a vLLM of its own.
            merges = self.use_vllm and not self._backend.rewrites_trl
            with self._base.unchanged() if merges else contextlib.nullcontext():
                ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            if logprobs is not None:
                self._see_vllm(prompts, ids, logprobs)
            return ids, logprobs
        generations = self._backend.generate(prompts, self._sampling())
        self._sampled = [generation.logprobs for generation in generations]
        self._drawn = {
            Continuation(prompt, generation.ids): generation.drawn_logprobs
            for prompt, generation in zip(prompts, generations, strict=True)
        }
        return [list(generation.ids) for generation in generations], None

    def _see_vllm(
        self,
        prompts: Sequence[TokenIds],
        completions: Sequence[Sequence[int]],
        logprobs: Sequence[Sequence[float | None]],
    ) -> None:
        """Keep what vLLM knows of its samples; a number that is no number reaches us as None."""
        if any(value is None for row in logprobs for value in row):
            return
        rows = [tuple(float(value or 0.0) for value in row) for row in logprobs]
        self._drawn = {
            Continuation(prompt, tuple(ids)): row
            for prompt, ids, row in zip(prompts, completions, rows, strict=True)
        }
        if draws_plainly(self._sampling()):
            self._sampled = rows

    def _sampling(self) -> Sampling:
        generation, training = self._config.generation, self._config.training
        return Sampling(
            max_new_tokens=training.max_completion_length,
            temperature=generation.temperature,
            top_p=generation.top_p,
            top_k=generation.top_k,
            min_new_tokens=generation.min_new_tokens,
            seed=self._sampling_seed(),
            dtype=generation.dtype,
        )

    def _sampling_seed(self) -> int:
        """A stream of its own for every update and process, so that resuming needs no state."""
        update = int(self.state.global_step * self.accelerator.num_processes)
        return int(self.args.seed) * 1_000_003 + update + int(self.accelerator.process_index)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Stock, then completions without signal leave the loss, its KL term and its divisor."""
        self._row_numbers = [line["row"] for line in inputs]
        lines = [{"prompt": self._rows[i].row.prompt, "row": i} for i in self._row_numbers]
        batch: dict[str, Any] = super()._generate_and_score_completions(lines)
        assert self._in_loss_B is not None, "TRL asks the reward function for every batch"
        in_loss_B1 = self._in_loss_B.to(batch["completion_mask"].device)[:, None]
        # TRL multiplies this mask into the loss but not into attention: exactly what is needed.
        mask_BC = batch.get("tool_mask", batch["completion_mask"]) * in_loss_B1
        batch["tool_mask"] = mask_BC
        tokens = (batch["completion_mask"] * mask_BC).sum()
        batch["num_items_in_batch"] = self.accelerator.gather(tokens).sum()
        return batch

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        tokens = (inputs["completion_mask"] * inputs["tool_mask"]).sum()
        alone = self.accelerator.num_processes == 1
        if inputs["num_items_in_batch"] == 0 or (alone and tokens == 0):
            # Without a graph no gradient appears, and the optimizer skips what has none: an
            # update without any signal leaves weights and moments as they are.
            return torch.zeros((), device=tokens.device, requires_grad=True)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs) * self._divisor_correction()
        return loss

    def _divisor_correction(self) -> float:
        """Takes filtered completions out of the divisors that TRL does not compute from the mask.

        dapo divides by the tokens of the mask. grpo and dr_grpo divide by the completions of a
        micro-batch, bnpo by the number of micro-batches, filtered or not.
        """
        if self.loss_type == "dapo":
            return 1.0
        assert self._buffered_inputs is not None, "the loss is computed on buffered inputs"
        masks = [batch["completion_mask"] * batch["tool_mask"] for batch in self._buffered_inputs]
        rows = [mask.any(dim=1) for mask in masks]
        counted = (
            torch.stack([r.any() for r in rows]) if self.loss_type == "bnpo" else torch.cat(rows)
        )
        return counted.numel() / max(1, int(counted.sum()))

    def _reference_logprobs(self, rows: Sequence[Continuation], width: int) -> torch.Tensor | None:
        """The KL term's, from one pass with all that rewards will ask of the reference."""
        # Scores are at temperature 1, and masked completions reach TRL without their ids.
        apart = self.temperature != 1 or self.mask_truncated_completions
        if apart or self._config.scoring.reuse == "never":
            return None
        samples = [self._sample(i, row.ids) for i, row in zip(self._row_numbers, rows, strict=True)]
        own = [ScoreRequest.of(row.context, row.ids, "reference") for row in rows]
        asked = list(dict.fromkeys([*own, *self._reward.requests(samples, "reference")]))
        # The adapter is off already, so the reference is what scores now.
        scores = self._backend.score([replace(request, scored_by="policy") for request in asked])
        self._by_reference = dict(zip(asked, scores, strict=True))
        device = next(self.model.parameters()).device
        logps_BC = torch.zeros(len(rows), width, device=device)
        for b, request in enumerate(own):
            found = self._by_reference[request]
            logps_BC[b, : len(found)] = torch.tensor(found, device=device)
        return logps_BC

    def _see_policy(self, rows: Sequence[Continuation], logps_BC: torch.Tensor) -> None:
        """How far sampling was from the weights that learn: it may run in another dtype."""
        for row, logps_C in zip(rows, logps_BC.tolist(), strict=True):
            # Taken out, because the next pass over these ids is one of other weights.
            drawn = self._drawn.pop(row, None)
            if drawn:
                gaps = (abs(a - b) for a, b in zip(drawn, logps_C, strict=False))
                self._run_log.sampler_gaps.append(sum(gaps) / len(drawn))

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

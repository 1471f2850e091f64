"""TRL's GRPOTrainer with our engine for sampling, and one record per completion."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from remote_trainer.activity import ACTIVITY
from remote_trainer.config import RunConfig
from remote_trainer.engines.base_weights import BaseWeights
from remote_trainer.engines.vllm_sampling import draws_plainly
from remote_trainer.evaluation.answers import references_of
from remote_trainer.faults import fault_point
from remote_trainer.field_paths import find
from remote_trainer.processes import gathered, process_index
from remote_trainer.records import (
    Continuation,
    EncodedRow,
    Prompt,
    SampledCompletion,
    Sampling,
    ScoreRequest,
    TokenIds,
)
from remote_trainer.rewards import LogprobCache, RewardFunction
from remote_trainer.trainer.packed_update import SharedPrefixTrainer
from remote_trainer.trainer.run_log import RunLog, seconds_now
from remote_trainer.trainer.trl_settings import TRL_SAMPLING

Logprobs = tuple[float, ...]


class RolloutTrainer(SharedPrefixTrainer):
    """Samples completions and keeps every log-prob computed for them.

    Subclasses set `_config`, `_reward`, `_run_log` and `_scores` before they call ``__init__``,
    `_base` after it, and `_prompts` before each rollout.
    """

    _config: RunConfig
    _reward: RewardFunction
    _run_log: RunLog
    _base: BaseWeights
    _prompts: Sequence[EncodedRow] = ()
    """The rows of the current rollout, one per completion."""
    _completions: Sequence[SampledCompletion] = ()
    """The completions sampled for them, in the same order."""
    _scores: LogprobCache
    """Log-probs of these completions that sampling, KL term or update computed."""

    def _tokenize_prompts(
        self, prompts: Sequence[Prompt]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The prompt ids of the rows; TRL would render and tokenise the prompts again."""
        assert len(prompts) == len(self._prompts), "TRL tokenises the prompts of one batch"
        return [list(row.prompt_ids) for row in self._prompts], None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.perf_counter()
        self._early_pass, self._scores = None, LogprobCache()
        with ACTIVITY.during("sampling"):
            fault_point("sampling")
            output = super()._generate(prompts)
        self._run_log.stopwatch.generate += seconds_now() - started
        return output

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        """Our engine samples, because it keeps the log-prob of every id; TRL would drop them.

        TRL samples if ``training.trl`` sets a field that our engine does not support, and with
        vLLM, whose log-probs TRL needs itself.
        """
        if self.use_vllm or set(self._config.training.trl) & TRL_SAMPLING:
            # TRL merges the adapter into the base model to send the merged weights to its vLLM.
            merges = self.use_vllm and not self._backend.rewrites_trl
            with self._base.unchanged() if merges else contextlib.nullcontext():
                ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            self._completions = self._sampled_by_trl(ids, logprobs)
            return ids, logprobs
        prompts = [tuple(ids) for ids in prompt_ids]
        # What is drawn must not depend on how prompts are split over processes.
        earlier = gathered(prompts)[: process_index() * len(prompts)]
        sampling = replace(self._sampling(), earlier=tuple(earlier))
        generations = self._backend.generate(prompts, sampling)
        self._completions = [
            self._completion(row, generation.ids, generation.logprobs, generation.drawn_logprobs)
            for row, generation in zip(self._prompts, generations, strict=True)
        ]
        return [list(generation.ids) for generation in generations], None

    def _sampled_by_trl(
        self,
        ids: Sequence[Sequence[int]],
        logprobs: Sequence[Sequence[float | None]] | None,
    ) -> list[SampledCompletion]:
        """Keeps vLLM's log-probs, unless one is NaN, which TRL passes as None."""
        numbers: list[Logprobs | None] = [None] * len(ids)
        if logprobs is not None and all(value is not None for row in logprobs for value in row):
            numbers = [tuple(float(value or 0.0) for value in row) for row in logprobs]
        plain = draws_plainly(self._sampling())
        return [
            self._completion(row, tuple(each), drawn if plain else None, drawn)
            for row, each, drawn in zip(self._prompts, ids, numbers, strict=True)
        ]

    def _completion(
        self, row: EncodedRow, ids: TokenIds, sampled: Logprobs | None, drawn: Logprobs | None
    ) -> SampledCompletion:
        name = self._config.answer_field
        encode = self._backend.prompt_tokenizer.encode
        return SampledCompletion(
            sample=self._reward.sample(row, ids),
            sampled_logprobs=sampled,
            drawn_logprobs=drawn,
            answer=find(row.row.fields, name),
            reference_tokens=max(
                (len(encode(each)) for each in references_of(row, name)), default=None
            ),
        )

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
        """A seed per update, so that resuming needs no random state."""
        return int(self.args.seed) * 1_000_003 + int(self.state.global_step)

    def _known_scores(self) -> LogprobCache:
        """Log-probs that sampling and the KL term already computed for these completions."""
        known, reuse = self._scores, self._config.scoring.reuse
        if reuse == "never":
            return known
        # vLLM's are used unchanged: the loss corrects for its kernels, a reward need not.
        exact = self.use_vllm or self._backend.samples_as_it_scores(self._sampling())
        sampled = [(each.sample, each.sampled_logprobs) for each in self._completions]
        if (exact or reuse == "always") and all(logprobs is not None for _, logprobs in sampled):
            for sample, logprobs in sampled:
                known.add_completion("sampling", sample, "policy", logprobs or ())
        else:
            samples = [sample for sample, _ in sampled]
            known.defer_completions(samples, self._add_update_logprobs)
        return known

    def _add_update_logprobs(self) -> None:
        """Add the log-probs of the next update's forward pass, if it can run before the rewards."""
        started = time.perf_counter()
        samples = [each.sample for each in self._completions]
        rows = [Continuation(sample.prompt_ids, sample.completion_ids) for sample in samples]
        logps_BC = self._policy_logprobs(rows)
        if logps_BC is not None:
            for sample, row_C in zip(samples, logps_BC.tolist(), strict=True):
                length = len(sample.completion_ids)
                self._scores.add_completion("update", sample, "policy", row_C[:length])
            # This time belongs to the update, which reuses the pass.
            self._run_log.stopwatch.score -= time.perf_counter() - started

    def _reference_logprobs(self, rows: Sequence[Continuation], width: int) -> torch.Tensor | None:
        """Reference log-probs of the KL term, from one pass with the rewards' own requests."""
        # Scores are at temperature 1, and masked completions reach TRL without their ids.
        separate = self.temperature != 1 or self.mask_truncated_completions
        if separate or self._config.scoring.reuse == "never":
            return None
        samples = [completion.sample for completion in self._completions]
        own = [ScoreRequest.of(row.context, row.ids, "reference") for row in rows]
        requests = list(dict.fromkeys([*own, *self._reward.requests(samples, "reference")]))
        # The adapter is already disabled, so the model scores as the reference.
        scores = self._backend.score([replace(request, scored_by="policy") for request in requests])
        found = dict(zip(requests, scores, strict=True))
        for request, logprobs in found.items():
            self._scores.add("kl_term", request, logprobs)
        padding = (0.0,) * width
        logps = [(*found[request], *padding)[:width] for request in own]
        return torch.tensor(logps, device=next(self.model.parameters()).device)

    def _on_policy_logprobs(self, rows: Sequence[Continuation], logps_BC: torch.Tensor) -> None:
        """Record the gap between sampling and training log-probs; sampling may use another dtype.

        Only the first pass counts: later passes over the same ids use updated weights. A completion
        that was sampled twice counts once, too.
        """
        drawn = {
            Continuation(each.sample.prompt_ids, each.sample.completion_ids): each
            for each in self._completions
            if each.drawn_logprobs
        }
        for row, logps_C in zip(rows, logps_BC.tolist(), strict=True):
            completion = drawn.get(row)
            if completion is None or completion.sampler_gap is not None:
                continue
            logprobs = completion.drawn_logprobs or ()
            gaps = (abs(a - b) for a, b in zip(logprobs, logps_C, strict=False))
            completion.sampler_gap = sum(gaps) / len(logprobs)
            self._run_log.sampler_gaps.append(completion.sampler_gap)

"""How well does each reward tell right completions from wrong ones, before any training?

    python benchmarks/reward_auc.py rows.jsonl

Within the group of a prompt, because that is all GRPO looks at: the share of (right, wrong) pairs
of the same prompt in which the right one has the higher reward; ties count half, chance is 0.5.
Truncated completions are left out: every reward floors them. Right means what eval.json means.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import SYSTEM_PROMPT
from learning_arms import inverse_loss, likelihood, supervised

from remote_trainer.config import parse_config
from remote_trainer.data.encode import encode_rows
from remote_trainer.data.load import load_eval_rows
from remote_trainer.evaluation.matching import is_right, rivals_by_kind
from remote_trainer.final_answer import final_answer
from remote_trainer.models.resolve import resolve_model
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.records import Sample, Sampling
from remote_trainer.rewards import REWARDS, RewardFunction

CONNECTORS = {
    "": "\nAnswer: ",
    ", no space": "\nAnswer:",
    ", so": "\nSo the correct answer is ",
    ", colon": "\nThe correct answer is: ",
}
CANDIDATES: dict[str, dict[str, Any]] = {
    **{
        f"answer_likelihood{k}": likelihood(formula="mean_prob", connector=v)
        for k, v in CONNECTORS.items()
    },
    "answer_likelihood, mean_logprob": likelihood(formula="mean_logprob"),
    "answer_likelihood, baseline": likelihood(formula="mean_prob", baseline=True),
    "supervised": supervised(),
    "supervised, coverage_ce": supervised(formula="coverage_ce"),
    "supervised, coverage_information": supervised(formula="coverage_information"),
    "supervised, positional": supervised(alignment="positional"),
    "supervised, original": supervised(formula="original"),
    "inverse_loss": inverse_loss(),
    "self_certainty": {"type": "self_certainty"},
    "token_f1": {"type": "token_f1"},
    "length_limit": {"type": "length_limit"},
    "random": {"type": "random"},
}


def main() -> None:
    """Sample, judge, print."""
    options = parse()
    settings = {"data": {"train": "-", "system_prompt": SYSTEM_PROMPT}}
    config = parse_config(str(settings).replace("'", '"'), "config")
    rows, _ = load_eval_rows(options.rows, config)
    backend = load_backend(resolve_model(config.model.name), config)
    encoded, _ = encode_rows(rows, backend.prompt_tokenizer, config, [])
    prompts = [row.prompt_ids for row in encoded for _ in range(options.samples)]
    drawn = backend.generate(prompts, Sampling(options.tokens, seed=1))
    kinds = [row.row.fields.get("kind") for row in encoded]
    answers = [str(row.row.fields["answer"]) for row in encoded]
    rivals = rivals_by_kind(kinds, answers)
    base = RewardFunction(backend, [REWARDS["random"]()], options.tokens)
    groups: list[list[tuple[Sample, bool]]] = []
    for i, row in enumerate(encoded):
        group = []
        for said in drawn[i * options.samples : (i + 1) * options.samples]:
            sample = base.sample(row, said.ids)
            answer = final_answer(sample.answer_text, answers[i])
            right = is_right(answer, answers[i], rivals.get(str(kinds[i]), set()))
            if said.ended and not sample.empty:
                group.append((sample, right))
        groups.append(group)
    mixed = [g for g in groups if len({right for _, right in g}) == 2]
    ended = fmean(len(group) / options.samples for group in groups)
    print(f"{len(mixed)} of {len(groups)} groups hold right and wrong ones; {ended:.0%} ended\n")
    print(
        "| reward | pairs ranked right | mean of right | mean of wrong |\n| --- | --- | --- | --- |"
    )
    for name, candidate in CANDIDATES.items():
        reward = RewardFunction(backend, [REWARDS[candidate["type"]].model_validate(candidate)])
        print(f"| {name} | {' | '.join(f'{v:.3f}' for v in ranked(reward, mixed))} |", flush=True)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    return parser.parse_args()


def ranked(
    reward: RewardFunction, groups: Sequence[Sequence[tuple[Sample, bool]]]
) -> tuple[float, float, float]:
    """(mean over groups of the share of pairs in order, mean reward of right and of wrong ones)."""
    shares, right_values, wrong_values = [], [], []
    for group in groups:
        judged = reward.judge([sample for sample, _ in group])
        values = [(j.reward or 0.0, right) for j, (_, right) in zip(judged, group, strict=True)]
        good = [value for value, right in values if right]
        bad = [value for value, right in values if not right]
        shares.append(fmean((g > b) + 0.5 * (g == b) for g in good for b in bad))
        right_values += good
        wrong_values += bad
    return fmean(shares), fmean(right_values), fmean(wrong_values)


if __name__ == "__main__":
    main()

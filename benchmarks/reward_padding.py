"""Does the right answer alone score at least as well as the same answer padded with junk?

    python benchmarks/reward_padding.py data/train_supervised.jsonl data/eval_supervised.jsonl
    python benchmarks/reward_padding.py ROWS --reward '{"type": "supervised", "length_weight": 0}'

Rows are chosen with a seed. Junk is 5, 20 or 60 words, before or behind the answer: random words,
polite sentences, or other answers of the same kind. The table shows the share of rows in which the
answer alone scores at least as well; then the share of pairs in which it scores above the answer of
another row of the same kind, and whether an empty completion has the minimum.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from learning import SYSTEM_PROMPT

from remote_trainer.config import parse_config
from remote_trainer.data.load import load_eval_rows
from remote_trainer.models.resolve import resolve_model
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.records import Row
from remote_trainer.rewards import REWARDS, RewardFunction

COUNTS = (5, 20, 60)
WRONG_ANSWERS = 4
WORDS = (
    "table quickly seven blue under river honest window paper walk stone music every lamp green "
    "idea north coffee silver plane carrot jump yellow about market doctor train simple ocean "
    "letter garden number bread street cloud often button winter glass horse"
)
SENTENCES = (
    "Thank you for your question. I hope that this helps you with your work today. If you have any "
    "other questions, please let me know and I will be happy to help you. It is always a pleasure "
    "to talk about this topic, because there is so much to learn. The weather is nice today, and "
    "many people like to walk in the park with their friends and family. As a language model I can "
    "also help you with many other tasks and topics."
)


def main() -> None:
    """Score, compare, print."""
    options = parse()
    system_prompt = json.dumps(options.system_prompt)
    config = parse_config(f"data: {{train: '-', system_prompt: {system_prompt}}}", "config")
    backend = load_backend(resolve_model(config.model.name), config)
    settings = json.loads(options.reward)
    reward = RewardFunction(backend, [REWARDS[settings["type"]].model_validate(settings)])
    print(f"reward: {options.reward}")
    for file in options.rows:
        rows, _ = load_eval_rows(file, config)
        compare(reward, rows, options.count, file.name)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("rows", type=Path, nargs="+", help="JSONL with prompt, answer and kind")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--reward", default='{"type": "supervised"}')
    parser.add_argument("--system-prompt", default=SYSTEM_PROMPT)
    return parser.parse_args()


def compare(reward: RewardFunction, rows: Sequence[Row], count: int, name: str) -> None:
    """Print the table of one file."""
    rng = random.Random(1)
    completions: list[tuple[Row, str, str]] = []
    for row in rng.sample(list(rows), count):
        answer = str(row.fields["answer"])
        others = rivals(rows, row)
        completions += [(row, "right", answer), (row, "empty", "")]
        completions += [(row, label, text) for label, text in padded(rng, answer, others)]
        wrong = rng.sample(others, min(WRONG_ANSWERS, len(others)))
        completions += [(row, "wrong", text) for text in wrong]
    samples = reward.samples([row for row, _, _ in completions], [text for *_, text in completions])
    values = [judged.reward or 0.0 for judged in reward.judge(samples)]
    right, better = 0.0, dict[str, list[bool]]()
    for (_, label, _), value in zip(completions, values, strict=True):
        if label == "right":
            right = value
        elif label in ("wrong", "empty"):
            better.setdefault(label, []).append(right > value)
        else:
            better.setdefault(label, []).append(right >= value)
    junk = [
        each for label, all_ in better.items() if label not in ("wrong", "empty") for each in all_
    ]
    print(
        f"\n{name}, {count} rows: the right answer alone is at least as good as padded in "
        f"{fmean(junk):.3f}, above a wrong one in {fmean(better['wrong']):.3f}, above the empty "
        f"completion in {fmean(better['empty']):.3f}\n"
    )
    print("| junk | " + " | ".join(f"{n} words" for n in COUNTS) + " |")
    print("| --- |" + " --- |" * len(COUNTS))
    for kind in ("words", "sentences", "other answers"):
        for place in ("behind", "before"):
            shares = [f"{fmean(better[f'{kind} {n} {place}']):.3f}" for n in COUNTS]
            print(f"| {kind}, {place} | {' | '.join(shares)} |")


def rivals(rows: Sequence[Row], row: Row) -> list[str]:
    """Answers of other rows of the same kind."""
    answers = {
        str(r.fields["answer"]) for r in rows if r.fields.get("kind") == row.fields.get("kind")
    }
    return sorted(answers - {str(row.fields["answer"])})


def padded(rng: random.Random, answer: str, others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(label, text) of the answer with junk."""
    for count in COUNTS:
        junk = {
            "words": " ".join(rng.choice(WORDS.split()) for _ in range(count)),
            "sentences": " ".join(SENTENCES.split()[:count]),
            "other answers": " ".join(rng.sample(others, min(count, len(others)))),
        }
        for kind, text in junk.items():
            yield f"{kind} {count} behind", f"{answer} {text}"
            yield f"{kind} {count} before", f"{text} {answer}"


if __name__ == "__main__":
    main()

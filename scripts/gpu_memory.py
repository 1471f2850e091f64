"""``python scripts/gpu_memory.py``: the table of docs/gpu.md, in GiB.

The formula is in remote_trainer.planning.memory. Settings can be changed, for instance
``python scripts/gpu_memory.py --completion-tokens 1024 --completions 4``.
"""

import argparse
from dataclasses import fields

from remote_trainer.planning.memory import (
    GIB,
    SHAPES,
    Load,
    Plan,
    Shape,
    plan_transformers,
    plan_unsloth,
    plan_vllm,
)

CARDS = (6, 8, 12, 16, 24, 32, 40, 48, 80, 141)
SPARE = 1.1  # fragments of the allocator, a screen, what is not in the formula


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory that a run takes on a GPU, estimated.")
    for field in fields(Load):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=int, default=field.default)
    print(table(Load(**vars(parser.parse_args()))))


def table(load: Load) -> str:
    """Markdown; a row for each way to train each model."""
    titles = ("model", "base", "engine", "weights", "adapter", "sampling", "update", "total")
    lines = [_line(*titles, "card"), _line(*["---"] * (len(titles) + 1))]
    for name, shape in SHAPES.items():
        for base, engine, plan in _ways(shape, load):
            parts = (plan.weights, plan.adapter, plan.sampling, plan.update, plan.total)
            numbers = [f"{part / GIB:.1f}" for part in parts]
            lines.append(_line(name, base, engine, *numbers, _card(plan)))
    return "\n".join(lines)


def _ways(shape: Shape, load: Load) -> list[tuple[str, str, Plan]]:
    return [
        ("4-bit", "transformers", plan_transformers(shape, load, in_4bit=True)),
        ("4-bit", "Unsloth, vLLM in standby", plan_unsloth(shape, load, in_4bit=True)),
        ("16-bit", "transformers", plan_transformers(shape, load, in_4bit=False)),
        ("16-bit", "Unsloth, vLLM in standby", plan_unsloth(shape, load, in_4bit=False)),
        ("16-bit", "transformers, vLLM colocated", plan_vllm(shape, load)),
    ]


def _card(plan: Plan) -> str:
    """The smallest usual card that holds the total with something to spare."""
    fits = [card for card in CARDS if card >= SPARE * plan.total / GIB]
    return str(fits[0]) if fits else f"over {CARDS[-1]}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

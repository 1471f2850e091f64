"""Log-probs, loss and LoRA gradients of our update against stock TRL's, on one ragged batch.

    python benchmarks/agreement.py

Two groups with prompts of other lengths, completions of other lengths, an adapter away from zero,
rows of at most 512 tokens so that a group does not fit in one. Prints one line of JSON.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any

import torch
from one_side import Clock, Task, config_of, ours
from trl import GRPOTrainer

from remote_trainer.inference import packed_rows as shared_prefix

PROMPTS, LONGEST, GENERATIONS, ROW_TOKENS = (180, 96), 64, 8, 512


@dataclass(frozen=True)
class Found:
    """What one way computed."""

    logprobs: torch.Tensor
    loss: float
    gradients: torch.Tensor


def ragged_batch(trainer: Any) -> dict[str, Any]:
    """The inputs of a loss, as TRL's `_generate_and_score_completions` makes them."""
    draw = torch.Generator().manual_seed(0)
    rows, width = GENERATIONS * len(PROMPTS), max(PROMPTS)
    ids = torch.randint(5, 40_000, (rows, width + LONGEST), generator=draw)
    mask = torch.ones_like(ids)
    for group, length in enumerate(PROMPTS):
        members = slice(group * GENERATIONS, (group + 1) * GENERATIONS)
        ids[members, :width] = ids[group * GENERATIONS, :width]
        mask[members, : width - length] = 0
    lengths = torch.randint(1, LONGEST + 1, (rows,), generator=draw)
    mask[:, width:] = torch.arange(LONGEST)[None] < lengths[:, None]
    with torch.no_grad(), trainer.model.disable_adapter():
        reference, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(
            trainer, trainer.model, ids, mask, LONGEST, batch_size=4
        )
    return {
        "prompt_ids": ids[:, :width],
        "prompt_mask": mask[:, :width],
        "completion_ids": ids[:, width:],
        "completion_mask": mask[:, width:],
        "tool_mask": torch.ones(rows, LONGEST, dtype=torch.long),
        "ref_per_token_logps": reference,
        "advantages": torch.randn(rows, generator=draw),
        "num_items_in_batch": mask[:, width:].sum(),
    }


def measured(trainer: Any, batch: dict[str, Any]) -> Found:
    """Log-probs of the completions, the loss and its gradients."""
    seen: list[torch.Tensor] = []
    method = trainer._get_per_token_logps_and_entropies

    def watched(*args: Any, **kwargs: Any) -> Any:
        found = method(*args, **kwargs)
        seen.append(found[0].detach())
        return found

    trainer._get_per_token_logps_and_entropies = watched
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    shown = batch["completion_mask"].bool()
    return Found(seen[0][shown], loss.item(), torch.cat(gradients))


def main() -> None:
    """Print the largest distances."""
    task = Task(prompt_tokens=PROMPTS[0], completion_tokens=LONGEST, generations=GENERATIONS)
    shared_prefix.ROW_TOKENS = ROW_TOKENS
    with TemporaryDirectory() as folder:
        trainer, _ = ours(task, config_of(task), Path(folder), Clock())
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(
                    parameter, std=0.02, generator=torch.Generator().manual_seed(1)
                )
        trainer.current_gradient_accumulation_steps = 1
        batch = ragged_batch(trainer)
        packed = measured(trainer, batch)
        stock = GRPOTrainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = MethodType(stock, trainer)
        alone = measured(trainer, batch)
    gradient_norms = [float(found.gradients.norm()) for found in (alone, packed)]
    print(
        json.dumps(
            {
                "tokens": len(alone.logprobs),
                "logprob_largest": float((packed.logprobs - alone.logprobs).abs().max()),
                "loss": [alone.loss, packed.loss],
                "loss_difference": abs(packed.loss - alone.loss),
                "gradient_norms": gradient_norms,
                "gradient_cosine": float(
                    torch.cosine_similarity(
                        packed.gradients.double(), alone.gradients.double(), dim=0
                    )
                ),
            }
        )
    )


if __name__ == "__main__":
    main()

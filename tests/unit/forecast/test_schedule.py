"""Learning rates of a schedule: those of transformers."""

import json

import pytest
import torch
from transformers import get_scheduler

from remote_trainer.config import parse_config
from remote_trainer.forecast.schedule import relative_rates


@pytest.mark.parametrize("warm_up", [0, 3])
@pytest.mark.parametrize("kind", ["constant", "constant_with_warmup", "linear", "cosine"])
def test_rates_are_those_of_transformers(kind: str, warm_up: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # The program turns constant with a warm-up into constant_with_warmup.
    name = "constant_with_warmup" if kind == "constant" and warm_up else kind
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warm_up, num_training_steps=12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    training = {"lr_scheduler_type": kind, "warmup_steps": warm_up, "max_steps": 12}
    config = parse_config(json.dumps({"training": training}), "c")
    assert list(relative_rates(config, 12)) == pytest.approx(expected)


def test_a_share_of_the_updates_may_be_the_warm_up() -> None:
    training = {"trl": {"warmup_ratio": 0.25}}
    config = parse_config(json.dumps({"training": training}), "c")
    assert list(relative_rates(config, 8)) == [0.0, 0.5, 1, 1, 1, 1, 1, 1]

"""Keys that llama.cpp's conversion scripts ask for and transformers renames."""

from typing import Any

import pytest

from remote_trainer.llama_cpp.converter import with_old_name


def config_of(model_type: str, **settings: Any) -> dict[str, Any]:
    """What transformers hands to the scripts."""
    from transformers import CONFIG_MAPPING

    return dict(CONFIG_MAPPING[model_type](**settings).to_dict())


@pytest.mark.parametrize(
    ("model_type", "settings", "name", "value"),
    [
        ("gpt2", {"n_positions": 64}, "n_ctx", 64),
        ("gpt_neox", {"rotary_pct": 0.5}, "rotary_pct", 0.5),
        ("gpt_neox", {}, "rotary_pct", 0.25),
    ],
)
def test_the_old_name_stands_beside_the_new_one(
    model_type: str, settings: dict[str, Any], name: str, value: float
) -> None:
    config = config_of(model_type, **settings)
    assert with_old_name(config) == {**config, name: value}


def test_a_config_that_has_the_old_name_or_needs_none_is_left_alone() -> None:
    for config in ({"model_type": "gpt2", "n_ctx": 8, "n_positions": 9}, config_of("llama")):
        assert with_old_name(config) == config

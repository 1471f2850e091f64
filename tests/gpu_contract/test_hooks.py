"""TRL has the methods that our trainer overrides, with those parameters, and what it reads."""

import pytest
from calls import Definition, calls_of, our_source, problems
from hooks import OUR_FILES, STOCK, family, hook_problems, ours
from vendor import Vendor, canonical

from remote_trainer.config import parse_config
from remote_trainer.trainer.trl_settings import grpo_config_fields, trl_settings

REAL = Vendor()
TRL, UTILS = STOCK[0][0], "trl/trainer/utils.py"
OVERRIDDEN = {
    "__init__", "_get_per_token_logps_and_entropies", "_prepare_inputs", "_tokenize_prompts",
    "_generate", "_generate_single_turn", "_generate_and_score_completions", "compute_loss",
    "_compute_loss", "_get_train_sampler", "_save_checkpoint", "_load_from_checkpoint",
    "_load_optimizer_and_scheduler", "_load_rng_state", "_send_telemetry", "training_step",
}  # fmt: skip


def test_our_trainer_fits_on_trl_s() -> None:
    assert hook_problems(ours(), family(REAL, STOCK)) == []


def test_the_hooks_are_the_ones_we_know_of() -> None:
    assert set(ours().methods()) & set(family(REAL, STOCK).methods()) == OVERRIDDEN


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (TRL, "def _generate_single_turn(", "def _generate_turn(", "_generate_single_turn"),
        (TRL, "def _tokenize_prompts(self, prompts", "def _tokenize_prompts(self, rows, prompts",
         "_tokenize_prompts: prompts stands where rows is given"),
        (TRL, "def _compute_loss(self, model, inputs)", "def _compute_loss(self, model, inputs, n)",
         "_compute_loss: does not take n"),
        (TRL, "_buffered_inputs", "_kept_inputs", "there is no _buffered_inputs below"),
        (TRL, "self._step", "self._micro_step", "there is no _step below"),
        ("transformers/trainer.py", "def _load_rng_state(", "def _load_random(", "_load_rng_state"),
    ],
)  # fmt: skip
def test_a_hook_that_changed_there_is_noticed(file: str, old: str, new: str, expected: str) -> None:
    found = hook_problems(ours(), family(REAL.changed(file, old, new), STOCK))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("def _generate(self, prompts", "def _generate_all(self, prompts", "_generate_all is"),
        ("self.num_generations", "self.completions", "there is no completions below"),
        ("_save_checkpoint(self, model: Any, trial: Any)", "_save_checkpoint(self, model: Any)",
         "_save_checkpoint: does not take trial"),
    ],
)  # fmt: skip
def test_a_hook_that_is_wrong_here_is_noticed(old: str, new: str, expected: str) -> None:
    found = hook_problems(ours(old, new), family(REAL, STOCK))
    assert any(expected in problem for problem in found), found


def test_batches_have_the_keys_that_we_ask_for() -> None:
    keys = ours().batch_keys()
    assert {"completion_mask", "completion_ids", "prompt_ids", "prompt_mask"} <= keys
    # Some we put in ourselves; then the loss reads them.
    put_in = {"tool_mask", "num_items_in_batch"}
    assert keys | put_in <= family(REAL, STOCK[:1]).strings()


def test_the_trainer_and_its_sampler_are_made_with_names_that_they_have() -> None:
    made = [
        call
        for file in OUR_FILES
        for call in calls_of(our_source(file), file)
        if call.callee == "EpochSampler" or "model" in call.keywords
    ]
    trainer = [call for call in made if call.callee == "super().__init__"]
    assert len(trainer) == 1
    assert (
        problems(
            trainer, {"super().__init__": (Definition(TRL, "GRPOTrainer.__init__", True),)}, REAL
        )
        == []
    )
    (sampler,) = [call for call in made if call.callee == "EpochSampler"]
    taken = REAL.parameters(UTILS, "RepeatSampler.__init__").names
    assert set(sampler.keywords) - taken == {"epoch"}


def test_the_sampler_keeps_its_seed_and_generator() -> None:
    body = REAL.source(UTILS, "RepeatSampler")
    assert "self.seed = seed" in body
    assert "self.generator = torch.Generator()" in body
    REAL.find(UTILS, "split_tensor_dict")


def test_callbacks_are_asked_before_the_optimizer() -> None:
    takes = REAL.parameters(
        "transformers/trainer_callback.py", "TrainerCallback.on_pre_optimizer_step"
    )
    assert takes.positional == ("self", "args", "state", "control")
    assert takes.any_keyword
    assert "self.callback_handler.on_pre_optimizer_step(" in canonical(
        REAL.text("transformers/trainer.py")
    )


def test_trl_has_every_field_that_we_set() -> None:
    config = parse_config("training: {learning_rate: 1.0e-6}", "c")
    fields = grpo_config_fields()
    assert fields is not None
    for vllm in (False, True):
        assert set(trl_settings(config, cuda=True, vllm=vllm)) <= fields

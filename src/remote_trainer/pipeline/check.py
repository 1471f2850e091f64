"""Everything that can be checked without loading a model: problems and the plan of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from remote_trainer.checks.model_check import Findings, look_at_model
from remote_trainer.config import RunConfig
from remote_trainer.data import CHECKED_ROWS, Dataset, EncodedData, encode_data, load_data
from remote_trainer.engines.facts import offers_unsloth
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.export.needs import missing_resources
from remote_trainer.export.registry import missing_parts
from remote_trainer.field_paths import find
from remote_trainer.models.layer_names import Targets
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.backend import engine_of, untested_versions
from remote_trainer.pipeline.base_model import base_at_hand
from remote_trainer.pipeline.folder import folder_problems
from remote_trainer.pipeline.initial_adapter import InitialAdapter, find_start
from remote_trainer.planning.length import updates_of, updates_per_epoch
from remote_trainer.progress import SILENT, ProgressCallbacks, in_megabytes, late
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers
from remote_trainer.rewards.formulas.user_function import UserFunction
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer
from remote_trainer.trackers.tracker import tracker_problems
from remote_trainer.trainer.trl_settings import batch_settings, check_trl_settings

Found = TypeVar("Found")


@dataclass(frozen=True)
class Plan:
    """What ``train`` would do with this config."""

    data: Dataset
    encoded: EncodedData | None
    """The rows with their lengths; None if the tokenizer is not on this machine yet."""
    notes: list[str] = field(default_factory=list)
    """Checks that were skipped, and why."""
    start: InitialAdapter | None = None
    """The adapter that is trained further."""
    base: Path | None = None
    """Folder of the base model; None if it is not on this machine yet."""
    warnings: list[str] = field(default_factory=list)
    """Likely mistakes that do not prevent training."""
    targets: Targets | None = None
    """The layers that get a new adapter; None if the model is not on this machine yet."""
    fast_path: str | None = None
    """Whether the CPU fast path applies, according to the model files; None without them."""

    @property
    def report(self) -> dict[str, Any] | None:
        """As in data_report.json."""
        return self.encoded.report if self.encoded else None


def check_config(
    config: RunConfig,
    watch: ProgressCallbacks = SILENT,
    most: int | None = CHECKED_ROWS,
    strict: bool = True,
    any_version: bool = False,
) -> Plan:
    """Check config, data, model files and batch sizes; loads no model, imports no torch.

    ``watch`` receives the progress of long steps. At most ``most`` prompts of a file are measured;
    None: all. Without ``strict``, lengths that no row reaches are not a problem: training drops
    longer rows.

    ``any_version`` accepts untested versions of the packages of a GPU engine.

    Raises UserInputError that lists every problem of every part.
    """
    problems = [
        *check_trl_settings(config),
        *reward_problems(config),
        *engine_problems(config, any_version),
        *folder_problems(config),
        *tracker_problems(config.tracking.report_to),
    ]

    def attempt(step: Callable[[], Found]) -> Found | None:
        """What ``step`` finds; None where it cannot, and its problems join the others."""
        try:
            return step()
        except UserInputError as error:
            problems.extend(error.problems)
            return None

    data = attempt(lambda: _load(config, watch))
    if data is not None:
        config = data.train_source.guess.apply(config)
        problems += _keep_problems(config, data)
        problems += attempt(lambda: column_problems(config, data.train, data.eval)) or ()
    base = attempt(lambda: base_at_hand(config))
    problems += attempt(lambda: _export_problems(config, base)) or ()
    tokenizer = attempt(lambda: _tokenizer(config, base))
    encoded = attempt(lambda: _measure(config, data, tokenizer, most, watch))
    found = Findings()
    if base is not None:
        report = encoded.report if encoded else None
        found = look_at_model(config, ModelFacts(base), tokenizer, data, report, strict)
        problems += found.problems
    start = attempt(lambda: find_start(config, base))
    doubt = attempt(lambda: start.doubt(config, base) if start and base else None)
    if problems:
        raise UserInputError(list(dict.fromkeys(problems)))  # two steps may read the same file
    assert data is not None, "without data there is a problem"
    of_rows = encoded.notes if encoded else _unchecked(base)
    notes = [*data.notes, *of_rows, *found.notes, *([doubt] if doubt else [])]
    return Plan(data, encoded, notes, start, base, found.warnings, found.targets, found.fast_path)


def _load(config: RunConfig, watch: ProgressCallbacks) -> Dataset:
    if config.data is None:
        raise UserInputError.at("data.train", "this key is missing; write the path of a data file")
    progress = late(watch, f"reading {config.data.train} (megabytes)")
    return load_data(config, in_megabytes(progress))


def _tokenizer(config: RunConfig, base: Path | None) -> PromptTokenizer | None:
    template_kwargs = config.data.chat_template_kwargs if config.data else {}
    return light_codec(base, template_kwargs) if base else None


def _measure(
    config: RunConfig,
    data: Dataset | None,
    tokenizer: PromptTokenizer | None,
    most: int | None,
    watch: ProgressCallbacks,
) -> EncodedData | None:
    if data is None or tokenizer is None:
        return None
    return encode_data(data, tokenizer, config, most, late(watch, "measuring prompts"))


def _unchecked(base: Path | None) -> list[str]:
    """Notes on what was not checked because no row was measured."""
    if base is not None:
        return ["prompt lengths were not checked: the model has no tokenizer.json"]
    return [
        f"{what} not checked: the model is not downloaded yet"
        for what in ("prompt lengths were", "lora.target_modules was")
    ]


def engine_problems(config: RunConfig, any_version: bool = False) -> list[Problem]:
    """Engine requirements that this machine lacks; imports torch only if necessary."""
    demands = config.model.backend == "unsloth" or config.generation.engine == "vllm"
    if not demands and not (config.model.backend == "auto" and offers_unsloth()):
        return []
    try:
        choice = engine_of(config)
    except UserInputError as error:
        return list(error.problems)
    return [] if any_version else untested_versions(choice)


def _export_problems(config: RunConfig, base: Path | None) -> list[Problem]:
    """What would fail only after training: missing programs, or too little disk space or memory."""
    found = []
    for form in config.export.formats:
        missing = missing_parts(form, config.export.gguf_type)
        if base:
            missing += missing_resources(form, base, Path(config.output_dir))
        found += [Problem(f"export.formats: {form}", each) for each in missing]
    return found


def _keep_problems(config: RunConfig, data: Dataset) -> list[Problem]:
    """Choosing the best adapter needs held-out rows with reference answers."""
    field = config.answer_field
    if config.training.keep == "last" or any(
        accepted_answers(find(row.fields, field)) for row in data.eval
    ):
        return []
    return [
        Problem(
            "training.keep",
            f"best needs held-out rows with a reference answer in {field!r}, but there are none; "
            "write data.eval: <file with answers>, or keep: last",
        )
    ]


def reward_problems(config: RunConfig) -> list[Problem]:
    """Rewards that cannot work; imports the modules of custom reward functions."""
    return [
        Problem(f"reward.{place}", problem)
        for place, reward in enumerate(config.reward)
        if (problem := reward.problem())
    ]


def column_problems(config: RunConfig, *parts: Sequence[Row]) -> list[Problem]:
    """Row keys that custom reward functions need and no row has."""
    found = []
    for place, reward in enumerate(config.reward):
        if not isinstance(reward, UserFunction) or reward.problem() is not None:
            continue
        function = reward.find()
        for name in function.needs():
            if not any(name in row.fields for rows in parts for row in rows):
                lacks = f"needs the key {name!r}, but no row has it"
                found.append(Problem(f"reward.{place}", function.says(lacks)))
    return found


def batch_plan(config: RunConfig, rows: int) -> dict[str, Any]:
    """Batch sizes, and the corresponding TRL settings."""
    training = config.training
    updates = updates_of(config, rows)
    completions = ceil(updates / training.num_iterations) * training.completions_per_update
    return {
        "prompts_per_update": training.prompts_per_update,
        "completions_per_update": training.completions_per_update,
        "updates_per_epoch": updates_per_epoch(config, rows),
        "updates": updates,
        "most_completion_tokens": completions * training.max_completion_length,
        "most_tokens_per_update": training.completions_per_update
        * (training.max_prompt_length + training.max_completion_length),
        "trl": {
            **batch_settings(config),
            "generation_batch_size": training.completions_per_update,
        },
    }

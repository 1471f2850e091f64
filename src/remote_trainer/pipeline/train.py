"""The stages of a run in order. A stage is skipped if its result exists."""

import json
import logging
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any

from remote_trainer.checks.model_check import settle
from remote_trainer.config import RunConfig, dump_config, parse_config
from remote_trainer.data import EncodedData, encode_data
from remote_trainer.engines.determinism import deterministic_kernels
from remote_trainer.engines.protocol import Backend
from remote_trainer.engines.selection import EngineChoice
from remote_trainer.errors import ExportError, UserInputError
from remote_trainer.evaluation import some_of
from remote_trainer.export import export_lora
from remote_trainer.export.proof import Expected
from remote_trainer.export.source import Source
from remote_trainer.export.writing import Proof
from remote_trainer.metrics.evaluated import evaluation_fault
from remote_trainer.mirror import mirror_of, mirrored
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.paths import FolderLock, refuse_if_locked
from remote_trainer.pipeline.backend import (
    adapter_settings,
    describe_engine,
    engine_of,
    load_trainable,
    untested_versions,
    with_auto_resolved,
)
from remote_trainer.pipeline.base_model import base_to_train, read_record, write_record
from remote_trainer.pipeline.changes import Inputs, as_run_began
from remote_trainer.pipeline.check import Plan, check_config
from remote_trainer.pipeline.evaluate import measure_before, write_eval
from remote_trainer.pipeline.export import (
    expected_of,
    export_format,
    prove_adapter,
    source_of,
    why_failed,
)
from remote_trainer.pipeline.extras import TO_TRAIN, require_packages
from remote_trainer.pipeline.folder import (
    begin_environment,
    is_finished,
    move_aside,
    open_folder,
    require_checkpoint,
    write_configs,
    write_environment,
)
from remote_trainer.pipeline.initial_adapter import (
    PEFT_WEIGHTS,
    InitialAdapter,
    apply,
    find_start,
    with_start,
)
from remote_trainer.pipeline.public_config import public_config
from remote_trainer.pipeline.report import with_live_report
from remote_trainer.pipeline.resources import require_disk, require_room
from remote_trainer.processes import is_main, join, process_count, shared
from remote_trainer.progress import SILENT, ProgressCallbacks, late
from remote_trainer.report import write_report
from remote_trainer.rewards import RewardFunction
from remote_trainer.rewards.self_test import self_test
from remote_trainer.run_dir import RunDir, read_result, write_json
from remote_trainer.supervision.failures import failures_explained
from remote_trainer.supervision.heartbeat import Heartbeat, noting_phases
from remote_trainer.trackers.process import TrackerProcess

logger = logging.getLogger(__name__)


def run(
    config: RunConfig,
    config_text: str,
    resume: str = "auto",
    allow_changed: bool = False,
    watch: ProgressCallbacks = SILENT,
) -> dict[str, Any]:
    """Train according to the config and return the content of eval.json.

    Of several processes (torchrun, ``accelerate launch``, Ray Train) the main one does all of it,
    and the others only train with it; they return nothing.

    Raises UserInputError before loading a model for problems in config, data or run folder, or if
    another process writes the folder.
    """
    folder = RunDir(config.output_dir)
    join()
    if not is_main():
        _train_along(folder, allow_changed)
        return {}
    refuse_if_locked(folder.root, "output_dir")
    plan = plan_with_model(config, watch, allow_changed)
    config = plan.data.train_source.guess.apply(config)
    require_checkpoint(resume)
    if not is_finished(folder, config.export):
        require_packages("train", TO_TRAIN)
        plan.warnings.extend(require_room(config, plan))
        require_disk(config, plan)
    choice = engine_of(config)
    assert plan.base is not None, "it was downloaded, or an error was raised"
    config = settle(config, ModelFacts(plan.base))
    config = with_auto_resolved(with_start(config, plan.start), choice)
    mirror = mirror_of(config.distributed.storage, folder)
    if resume == "never":
        move_aside(folder)
    if mirror is not None:
        mirror.set_aside() if resume == "never" else mirror.restore()
    config = as_run_began(folder, config)
    deterministic = deterministic_kernels(config.training.deterministic)
    watch = mirrored(watch, mirror)
    lock = FolderLock(folder.root, "output_dir")
    with failures_explained(folder), lock, deterministic:
        return _run(
            folder, plan.base, config, config_text, plan, choice, resume, allow_changed, watch
        )


def _run(
    folder: RunDir,
    model_folder: Path,
    config: RunConfig,
    config_text: str,
    plan: Plan,
    choice: EngineChoice,
    resume: str,
    allow_changed: bool,
    watch: ProgressCallbacks,
) -> dict[str, Any]:
    """The stages, in a locked folder."""
    adapter_sha256 = plan.start.sha256 if plan.start else None
    inputs = Inputs(plan.data.sha256, plan.data.train_source.sha256, adapter_sha256, plan.base)
    checkpoint = open_folder(folder, config, inputs, resume, allow_changed)
    if is_finished(folder, config.export):
        shared(None)
        return read_eval(folder)
    write_configs(folder, config, config_text)
    watch.saved()
    shared(None if folder.adapter.exists() else dump_config(config))
    public = public_config(config, read_record(folder)).model_dump(mode="json")
    tracker = TrackerProcess(config.tracking.report_to, folder, public, config.training.save_steps)
    watch = tracker.watching(with_live_report(noting_phases(watch), folder))
    with Heartbeat(folder), tracker:
        source, expected = _train_and_evaluate(
            folder, model_folder, config, plan, choice, checkpoint, watch
        )
        proofs = _export(source, expected, config, folder, watch)
        watch.stage("writing the report")
        write_report([folder], folder.report)
    watch.saved()
    if failed := [why_failed(proof) for proof in proofs if proof["verdict"] == "FAIL"]:
        raise ExportError("; ".join(failed))
    return read_eval(folder)


def _train_and_evaluate(
    folder: RunDir,
    model_folder: Path,
    config: RunConfig,
    plan: Plan,
    choice: EngineChoice,
    checkpoint: Path | None,
    watch: ProgressCallbacks,
) -> tuple[Source, Expected]:
    """Everything that needs the model, which is freed afterwards: merging needs the memory."""
    watch.stage(f"loading {config.model.name}")
    start = find_start(config, model_folder)  # at check time the model may not have been downloaded
    _report_plan(plan, choice, start.doubt(config, model_folder) if start else None, watch)
    backend = load_trainable(model_folder, config, choice)
    write_record(folder, config, model_folder, watch)
    engine = {**backend.describe(), "sampling": choice.generation}
    watch.stage(describe_engine(engine))
    if process_count() > 1:
        watch.stage(f"{process_count()} processes train together")
    begin_environment(folder, backend, engine, resumed=checkpoint is not None)
    data = _encode(plan, backend, config, folder, watch)
    apply(backend, config, start)
    evaluated = folder.eval.exists() and folder.adapter.exists()
    before = None
    if not evaluated:
        before = measure_before(backend, model_folder, data.eval, config, watch, start)
    if folder.adapter.exists():
        _apply_result(backend, folder, start)
    else:
        if start is None:
            backend.add_adapter(adapter_settings(config))
        _train(backend, data, config, folder, shared(checkpoint), watch)
        export_lora(backend, folder.adapter)
    if not evaluated:
        write_eval(backend, data.eval, before, config, folder, watch, _chosen_by(folder, config))
    engine |= backend.describe()  # now with the paths that were taken
    watch.stage(f"fast path: {engine['fast_path']}")
    write_environment(folder, backend, engine)
    watch.saved()
    expected = expected_of(backend, data.eval or some_of(data.train), config)
    return source_of(backend, model_folder, folder.adapter, config, folder), expected


def _train_along(folder: RunDir, allow_changed: bool) -> None:
    """What the processes beside the main one do: load the same and train with it.

    The main process says with which config, if anything is to be trained, and from where.
    """
    logging.getLogger("remote_trainer").setLevel(logging.ERROR)  # the main process warns
    text: str | None = shared(None)
    if text is None:
        return
    config = parse_config(text, str(folder.resolved_config))
    plan = plan_with_model(config, SILENT, allow_changed)
    assert plan.base is not None, "it was downloaded, or an error was raised"
    start = find_start(config, plan.base)
    with deterministic_kernels(config.training.deterministic):
        backend = load_trainable(plan.base, config, engine_of(config))
        data = _encoded(plan, backend, config, SILENT)
        apply(backend, config, start)
        if start is None:
            backend.add_adapter(adapter_settings(config))
        checkpoint: Path | None = shared(None)
        mirror = mirror_of(config.distributed.storage, folder)
        if mirror is not None and checkpoint is not None:
            mirror.restore_checkpoint(checkpoint)
        _train(backend, data, config, folder, checkpoint, SILENT)


def _report_plan(
    plan: Plan, choice: EngineChoice, doubt: str | None, watch: ProgressCallbacks
) -> None:
    """Warnings and notes of the check, and the reasons for the choice of the engine."""
    for warning in [*plan.warnings, *untested_versions(choice)]:
        logger.warning("%s", warning)
    adapter = plan.targets.sentence() if plan.targets else None
    for sentence in dict.fromkeys([*plan.notes, *choice.reasons, doubt, adapter]):
        if sentence is not None:
            watch.stage(sentence)


def _chosen_by(folder: RunDir, config: RunConfig) -> Collection[str]:
    """Held-out rows (``file:line``) whose answers decided which adapter was kept."""
    guard = read_guard(folder)
    chose = guard["stopped"] or config.training.keep == "best"
    return guard["probe_rows"] if chose else ()


def plan_with_model(config: RunConfig, watch: ProgressCallbacks, any_version: bool) -> Plan:
    """The plan, after downloading the model; checks its files before it is loaded."""
    plan = check_config(config, watch, most=None, strict=False, any_version=any_version)
    if plan.base is not None:
        return plan
    require_packages("train", TO_TRAIN)  # before a useless download
    watch.stage(f"downloading {config.model.name}")
    base_to_train(config)
    return check_config(config, watch, most=None, strict=False, any_version=any_version)


def _encode(
    plan: Plan,
    backend: Backend,
    config: RunConfig,
    folder: RunDir,
    watch: ProgressCallbacks,
) -> EncodedData:
    """Encode the rows; write data_report.json with the kept and dropped rows."""
    data = _encoded(plan, backend, config, watch)
    notes = [*plan.data.notes, *data.notes]
    adapter = plan.start.sha256 if plan.start else None
    made_of = {"sha256": plan.data.sha256, "adapter_sha256": adapter}
    write_json(folder.data_report, {**data.report, "notes": notes, **made_of})
    return data


def _encoded(
    plan: Plan, backend: Backend, config: RunConfig, watch: ProgressCallbacks
) -> EncodedData:
    """The rows as ids."""
    data = plan.encoded and plan.encoded.by(backend.prompt_tokenizer)
    if data is not None:
        return data
    on_progress = late(watch, "measuring prompts")
    return encode_data(plan.data, backend.prompt_tokenizer, config, on_progress=on_progress)


def read_eval(folder: RunDir) -> dict[str, Any]:
    """Content of eval.json."""
    result = read_result(folder.eval, after=(dict, NoneType), before=(dict, NoneType))
    if (fault := evaluation_fault(result)) is not None:
        raise UserInputError.at(str(folder.eval), f"is damaged: {fault}; repair or remove it")
    return result


def read_guard(folder: RunDir) -> dict[str, Any]:
    """Content of guard.json."""
    text = (str, NoneType)
    return read_result(
        folder.guard, stopped=bool, step=int, result_step=int, text=text, probe_rows=list
    )


def _apply_result(backend: Backend, folder: RunDir, start: InitialAdapter | None) -> None:
    """Load the adapter of an earlier call, into the initial adapter if there is one."""
    if start is None:
        backend.load_adapter(folder.adapter)
        return
    # It imports torch and PEFT, which `check` and the light install do not need.
    from remote_trainer.trainer.checkpoint import read_tensors

    read_tensors(folder.adapter / PEFT_WEIGHTS, backend.model)


def _train(
    backend: Backend,
    data: EncodedData,
    config: RunConfig,
    folder: RunDir,
    checkpoint: Path | None,
    watch: ProgressCallbacks,
) -> None:
    # It imports TRL, which Unsloth must patch first: by now the engine is loaded.
    from remote_trainer.trainer.loop import train

    watch.stage("training")
    limit, updates = config.training.max_completion_length, config.training.max_steps or 1
    reward = RewardFunction(backend, config.reward, limit, updates)
    tested = self_test(reward, data.train) if is_main() else None
    if tested is not None:
        watch.stage(tested.text)
        report = json.loads(folder.data_report.read_text(encoding="utf-8"))
        write_json(folder.data_report, {**report, "reward_self_test": asdict(tested)})
    vllm = config.generation.engine == "vllm"
    train(backend, reward, data.train, config, folder, checkpoint, data.eval, watch, vllm)


def _export(
    source: Source, expected: Expected, config: RunConfig, folder: RunDir, watch: ProgressCallbacks
) -> list[Proof]:
    """Verify the adapter and write every other format of the config."""
    others = [form for form in config.export.formats if form != "lora"]
    return [
        prove_adapter(source, folder.adapter, expected, watch),
        *(export_format(form, source, folder.export(form), expected, watch) for form in others),
    ]

"""The stages of a run in order. Each is skipped if the folder already holds its result."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, dump_config
from remote_trainer.data import EncodedData, encode_data
from remote_trainer.engine.backend import Backend
from remote_trainer.engine.resolve import resolve_model
from remote_trainer.environment import describe_environment
from remote_trainer.errors import ExportError
from remote_trainer.evaluation import some_of
from remote_trainer.export import export_lora
from remote_trainer.export.formats import Proof
from remote_trainer.export.proof import Expected
from remote_trainer.export.source import Source
from remote_trainer.pipeline.backend import (
    adapter_settings,
    describe_engine,
    engine_of,
    in_force,
    load_trainable,
)
from remote_trainer.pipeline.check import Plan, check_config
from remote_trainer.pipeline.evaluate import measure_before, write_eval
from remote_trainer.pipeline.export import (
    expected_of,
    export_format,
    prove_adapter,
    source_of,
    why_failed,
)
from remote_trainer.pipeline.folder import is_finished, open_folder, require_checkpoint
from remote_trainer.pipeline.start_adapter import (
    PEFT_WEIGHTS,
    StartAdapter,
    find_start,
    put_on,
    with_start,
)
from remote_trainer.pipeline.watcher import SILENT, Watcher, late
from remote_trainer.report import write_report
from remote_trainer.rewards import RewardFunction
from remote_trainer.rewards.self_test import self_test
from remote_trainer.run_dir import RunDir, write_json, write_text


def run(
    config: RunConfig,
    config_text: str,
    resume: str = "auto",
    allow_changed: bool = False,
    watch: Watcher = SILENT,
) -> dict[str, Any]:
    """Train as the config says and return the content of eval.json.

    Raises UserInputError before a model is loaded if config, data or run folder do not allow it.
    """
    plan = check_config(config, watch, most=None)
    require_checkpoint(resume)
    choice = engine_of(config)
    config = in_force(with_start(config, plan.start), choice)
    folder = RunDir(config.output_dir)
    adapter_sha256 = plan.start.sha256 if plan.start else None
    checkpoint = open_folder(
        folder, config, plan.data.sha256, resume, allow_changed, adapter_sha256
    )
    if is_finished(folder, config.export.formats):
        return read_eval(folder)
    write_text(folder.config, config_text)
    write_text(folder.resolved_config, dump_config(config))
    watch.stage(f"loading {config.model.name}")
    model_folder = resolve_model(config.model.name, config.model.revision)
    start = find_start(config, model_folder)  # the model may not have been here for the check
    doubt = start.doubt(config, model_folder) if start else None
    for sentence in (*choice.reasons, *([doubt] if doubt else [])):
        watch.stage(sentence)
    backend = load_trainable(model_folder, config, choice)
    engine = {**backend.describe(), "sampling": choice.generation}
    watch.stage(describe_engine(engine))
    write_json(folder.environment, {**describe_environment(), "engine": engine})
    data = _encode(plan, backend, config, folder, adapter_sha256, watch)
    put_on(backend, config, start)
    before = measure_before(backend, model_folder, data.eval, config, watch, start)
    if folder.adapter.exists():
        _put_on_result(backend, folder, start)
    else:
        if start is None:
            backend.add_adapter(adapter_settings(config))
        _train(backend, data, config, folder, checkpoint, watch)
        export_lora(backend, folder.adapter)
    guard = read_guard(folder)
    chose = guard["stopped"] or config.training.keep == "best"
    chosen_by = guard["probe_rows"] if chose else ()
    write_eval(backend, data.eval, before, config, folder, watch, chosen_by)
    expected = expected_of(backend, data.eval or some_of(data.train), config)
    source = source_of(backend, model_folder, folder.adapter, config, folder)
    del backend  # merging needs the memory
    proofs = _export(source, expected, config, folder, watch)
    watch.stage("writing the report")
    write_report([folder], folder.report)
    if failed := [why_failed(proof) for proof in proofs if proof["verdict"] == "FAIL"]:
        raise ExportError("; ".join(failed))
    return read_eval(folder)


def _encode(
    plan: Plan,
    backend: Backend,
    config: RunConfig,
    folder: RunDir,
    adapter_sha256: str | None,
    watch: Watcher,
) -> EncodedData:
    """The rows as the model gets them; what was kept and why others were not is written down."""
    data = plan.encoded and plan.encoded.by(backend.codec)
    if data is None:
        data = encode_data(
            plan.data, backend.codec, config, on_progress=late(watch, "measuring prompts")
        )
    notes = [*plan.data.notes, *data.notes]
    made_of = {"sha256": plan.data.sha256, "adapter_sha256": adapter_sha256}
    write_json(folder.data_report, {**data.report, "notes": notes, **made_of})
    for note in notes:
        watch.stage(f"note: {note}")
    return data


def read_eval(folder: RunDir) -> dict[str, Any]:
    """Content of eval.json."""
    return dict(json.loads(folder.eval.read_text(encoding="utf-8")))


def read_guard(folder: RunDir) -> dict[str, Any]:
    """Content of guard.json."""
    return dict(json.loads(folder.guard.read_text(encoding="utf-8")))


def _put_on_result(backend: Backend, folder: RunDir, start: StartAdapter | None) -> None:
    """What an earlier call trained; a model that has the adapter to begin with gets its numbers."""
    if start is None:
        backend.load_adapter(folder.adapter)
        return
    from remote_trainer.trainer.checkpoint import read_tensors

    read_tensors(folder.adapter / PEFT_WEIGHTS, backend.model)


def _train(
    backend: Backend,
    data: EncodedData,
    config: RunConfig,
    folder: RunDir,
    checkpoint: Path | None,
    watch: Watcher,
) -> None:
    from remote_trainer.trainer.grpo import train

    watch.stage("training")
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    tested = self_test(reward, data.train)
    if tested is not None:
        watch.stage(tested.text)
        report = json.loads(folder.data_report.read_text(encoding="utf-8"))
        write_json(folder.data_report, {**report, "reward_self_test": asdict(tested)})
    vllm = config.generation.engine == "vllm"
    train(backend, reward, data.train, config, folder, checkpoint, data.eval, watch.line, vllm)


def _export(
    source: Source, expected: Expected, config: RunConfig, folder: RunDir, watch: Watcher
) -> list[Proof]:
    """Prove the adapter and write every other format of the config."""
    others = [form for form in config.export.formats if form != "lora"]
    return [
        prove_adapter(source, folder.adapter, expected, watch),
        *(export_format(form, source, folder.root / form, expected, watch) for form in others),
    ]

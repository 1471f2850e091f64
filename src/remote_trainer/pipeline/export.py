"""A trained adapter -> files for other programs; each is verified before it gets its name."""

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, load_resolved
from remote_trainer.data import load_data
from remote_trainer.data.encode import encode_rows
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import ExportError, Problem, UserInputError
from remote_trainer.evaluation import length_limit, some_of
from remote_trainer.export.needs import missing_resources
from remote_trainer.export.proof import Expected, Question
from remote_trainer.export.registry import FORMATS, describe, missing_parts, prove, write
from remote_trainer.export.shards import shard_progress
from remote_trainer.export.source import Source
from remote_trainer.export.writing import Proof, adapter_file
from remote_trainer.export_formats import names_for_config
from remote_trainer.paths import FolderLock
from remote_trainer.pipeline.backend import adapter_settings, load_backend
from remote_trainer.pipeline.base_model import base_of
from remote_trainer.pipeline.export_place import PROOF, parts_of, place_of, with_files_found
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.pipeline.public_config import card_facts
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.records import EncodedRow, Sampling, ScoreRequest
from remote_trainer.run_dir import (
    RunDir,
    clear_leftovers,
    file_sha256,
    new_folder,
    read_result,
    sync_file,
    sync_folder,
    temporary_folder,
    write_json,
)
from remote_trainer.supervision.failures import failures_explained

QUESTIONS = 24
WEIGHTS = "adapter_model.safetensors"
LEAST_LEFT = 0.2


def export_trained(
    target: Path,
    form: str,
    gguf_type: str | None = None,
    output: Path | None = None,
    watch: ProgressCallbacks = SILENT,
    overrides: Sequence[str] = (),
) -> tuple[Path, Proof]:
    """Export a finished run, or one checkpoint of a run; returns (folder, proof).

    ``lora`` with a ``gguf_type`` also writes the adapter for llama.cpp and returns its proof.
    ``overrides`` name the current places of base and data. Raises UserInputError if ``target`` is
    neither, the options cannot be combined or another process writes the run, ExportError if the
    export fails.
    """
    require_packages("export", TO_LOAD)
    _require_options(form, gguf_type)
    run, checkpoint = parts_of(target)
    config = load_resolved(run.resolved_config, overrides)
    folder = place_of(run, checkpoint, form, output)
    base = base_of(run, config, watch)
    inside = folder.resolve().is_relative_to(run.root.resolve())
    clear_leftovers(folder.parent)
    lock = FolderLock(run.root) if inside else nullcontext()
    with failures_explained(run), lock, temporary_folder(folder) as scratch:
        adapter = run.adapter
        watch.stage(f"loading {config.model.name}")
        backend = load_backend(base, config)
        if checkpoint is None:
            backend.load_adapter(adapter)
        else:
            adapter = scratch / "adapter"
            _apply(backend, checkpoint, config)
            backend.save_adapter(adapter)
            backend.prompt_tokenizer.tokenizer.save_pretrained(adapter)
        watch.stage("computing reference results with the trained model")
        expected = expected_of(backend, _rows(backend, config, run), config)
        source = source_of(backend, base, adapter, config, run, gguf_type)
        del backend  # the merge needs the memory
        if folder == adapter:
            proof = prove_adapter(source, adapter, expected, watch)
        else:
            proof = export_format(form, source, folder, expected, watch)
        if form == "lora" and gguf_type is not None and proof["verdict"] != "FAIL":
            proof = add_gguf_adapter(source, folder, expected, watch)
        return folder, proof


def _require_options(form: str, gguf_type: str | None) -> None:
    """Raises UserInputError for an unknown format or type, or for an invalid combination."""
    forms = names_for_config()
    if form not in forms:
        raise UserInputError.at("--format", f"found {form!r}; write {', '.join(forms)}")
    if gguf_type is None:
        return
    types = FORMATS[form].gguf_types
    if not types:
        raise UserInputError.at(
            "--gguf-type", f"{form} is not a GGUF; omit --gguf-type, or write --format gguf or lora"
        )
    if gguf_type not in types:
        whole = " for an adapter (other types are for whole models)" if form == "lora" else ""
        raise UserInputError.at(
            "--gguf-type", f"found {gguf_type!r}; write {', '.join(types)}{whole}"
        )


def source_of(
    backend: Backend,
    base: Path,
    adapter: Path,
    config: RunConfig,
    run: RunDir,
    gguf_type: str | None = None,
) -> Source:
    """The input of the exports of a trained model."""
    return Source(
        base,
        adapter,
        gguf_type or config.export.gguf_type,
        trained_in_4bit=backend.in_4bit,
        merge_base=config.export.merge_base,
        facts=card_facts(config, run),
    )


def _apply(backend: Backend, checkpoint: Path, config: RunConfig) -> None:
    """Load the adapter of a checkpoint onto the base model."""
    # It imports torch and PEFT, which `check` and the light install do not need.
    from remote_trainer.trainer.checkpoint import read_adapter, verify

    verify(checkpoint)
    backend.add_adapter(adapter_settings(config))
    read_adapter(checkpoint, backend.model)


def _rows(backend: Backend, config: RunConfig, run: RunDir) -> Sequence[EncodedRow]:
    """Held-out rows of the run; training rows if none are held out."""
    data = load_data(with_files_found(config, run))
    problems: list[Problem] = []
    rows, _ = encode_rows(
        data.eval or some_of(data.train), backend.prompt_tokenizer, config, problems
    )
    if problems:
        raise UserInputError(problems)
    return rows


class _Unproven(Exception):
    """An export failed verification, so it must not get its name."""


def export_format(
    form: str, source: Source, target: Path, expected: Expected, watch: ProgressCallbacks = SILENT
) -> Proof:
    """Write ``target`` in one format and verify it; a verified export is kept.

    An export that fails verification gets the name ``<target>.failed``; the verdict is FAIL then.
    Raises ExportError if it cannot be written at all.
    """
    own = proof_name(form, source.gguf_type)
    clear_leftovers(target.parent)
    if is_proven(target, own) and _is_of(source, read_proof(target, own)):
        return read_proof(target, own)
    _require_parts(form, source, target)
    failed = failed_folder(target)
    shutil.rmtree(failed, ignore_errors=True)
    watch.stage(f"writing {form} to {target}")
    proof: Proof = {}
    with suppress(_Unproven), new_folder(target) as folder, shard_progress(watch.progress):
        write(form, source, folder, watch.stage)
        describe(form, source, folder)
        proof = {**_made(form, source), **prove(form, source, folder, expected, watch.stage)}
        for name in {PROOF, own}:
            write_json(folder / name, proof)
        if proof["verdict"] == "FAIL":
            folder.rename(failed)
            raise _Unproven
        _keep_others(target, folder)
    return proof


def add_gguf_adapter(
    source: Source, folder: Path, expected: Expected, watch: ProgressCallbacks = SILENT
) -> Proof:
    """Write the adapter for llama.cpp into its PEFT folder, and verify it with a GGUF of the base.

    The file appears there after verification, or in ``<folder>.failed``. Raises ExportError if it
    cannot be written at all.
    """
    file = adapter_file(source, folder)
    own = f"{file.stem}.{PROOF}"
    clear_leftovers(folder.parent)
    if file.exists() and is_proven(folder, own) and _is_of(source, read_proof(folder, own)):
        return read_proof(folder, own)
    _require_parts("lora_gguf", source, folder)
    for place in (folder, failed_folder(folder)):
        for unproven in (file.name, own):
            (place / unproven).unlink(missing_ok=True)
    watch.stage(f"writing {file}")
    with temporary_folder(folder) as scratch:
        write("lora_gguf", source, scratch, watch.stage)
        made = _made("lora as GGUF", source)
        proof = {**made, **prove("lora_gguf", source, scratch, expected, watch.stage)}
        goal = failed_folder(folder) if proof["verdict"] == "FAIL" else folder
        write_json(goal / own, proof)
        sync_file(scratch / file.name)
        os.replace(scratch / file.name, goal / file.name)
        sync_folder(goal)
    if goal == folder:
        describe("lora", source, folder)
    return proof


def _made(name: str, source: Source) -> dict[str, Any]:
    """Format and origin of an export, for its proof."""
    return {"format": name, **_origin(source)}


def _origin(source: Source) -> dict[str, Any]:
    merge_base = source.merge_base if source.trained_in_4bit else None
    return {"merge_base": merge_base, "adapter_sha256": file_sha256(source.adapter / WEIGHTS)}


def _is_of(source: Source, proof: Proof) -> bool:
    """Whether a proof is about this adapter, merged this way; old proofs do not record it."""
    return all(proof.get(key, value) == value for key, value in _origin(source).items())


def proof_name(form: str, gguf_type: str) -> str:
    """File name of an export's proof: each file of a GGUF folder has its own."""
    return f"model-{gguf_type}.{PROOF}" if FORMATS[form].file_per_type else PROOF


def _keep_others(target: Path, folder: Path) -> None:
    """Keep the files of earlier exports of other types."""
    for file in target.glob("model-*") if target.exists() else ():
        if not (folder / file.name).exists():
            os.link(file, folder / file.name)


def failed_folder(target: Path) -> Path:
    """The folder for an export that failed verification."""
    return target.with_name(f"{target.name}.failed")


def is_proven(target: Path, name: str = PROOF) -> bool:
    """Whether a complete export exists that did not fail verification."""
    return (target / name).exists() and read_proof(target, name)["verdict"] != "FAIL"


def why_failed(proof: Proof) -> str:
    """What is wrong with an export whose verdict is FAIL, for the user."""
    if "reason" in proof:
        return f"{proof['format']} cannot be loaded: {proof['reason']}"
    wrong = [name for name, right in proof["checks"].items() if not right]
    slope = "unknown" if proof["slope"] is None else f"{proof['slope']:.3g}"
    text = (
        f"{proof['format']} does not match the trained model; failed checks: {', '.join(wrong)} "
        f"(slope {slope}, distance {proof['distance_mean']:.3g} nats per token, at most "
        f"{proof['distance_limit']:.3g} allowed)"
    )
    return text + _if_lossy(proof) if wrong == ["slope"] else text


def _if_lossy(proof: Proof) -> str:
    """Coarse rounding loses part of the training effect, so a correct merge can look wrong."""
    form = FORMATS.get(proof["format"])
    return form.if_slope_is_low if form and LEAST_LEFT < proof["slope"] < 1 else ""


def prove_adapter(
    source: Source, adapter: Path, expected: Expected, watch: ProgressCallbacks = SILENT
) -> Proof:
    """Verify the adapter of a finished training and write the proof next to it."""
    clear_leftovers(adapter.parent)
    if is_proven(adapter):
        return read_proof(adapter)
    watch.stage(f"verifying {adapter}")
    describe("lora", source, adapter)
    proof = {"format": "lora", **prove("lora", source, adapter, expected, watch.stage)}
    write_json(adapter / PROOF, proof)
    return proof


def read_proof(folder: Path, name: str = PROOF) -> Proof:
    """Content of proof.json, or of the proof of one file."""
    return read_result(folder / name, verdict=str, format=str)


def expected_of(backend: Backend, rows: Sequence[EncodedRow], config: RunConfig) -> Expected:
    """The greedy answers of the loaded model to the first rows, and their log-probs."""
    first = rows[:QUESTIONS]
    asked = config.evaluation.max_completion_length
    limit = length_limit(rows, config.answer_field, backend, asked)
    prompts = [row.prompt_ids for row in first]
    answers = backend.generate(prompts, Sampling(limit, temperature=0))
    own = [ScoreRequest.of(p, a.ids) for p, a in zip(prompts, answers, strict=True)]
    other = [ScoreRequest.of(p, a.ids, "reference") for p, a in zip(prompts, answers, strict=True)]
    scores = backend.score([*own, *other])
    return Expected(
        questions=[
            Question(row.row.prompt, row.prompt_ids, answer.ids, policy, base, row.row.tools)
            for row, answer, policy, base in zip(
                first, answers, scores[: len(own)], scores[len(own) :], strict=True
            )
        ],
        eos_ids=backend.prompt_tokenizer.eos_ids,
        chat_template_kwargs=backend.prompt_tokenizer.chat_template_kwargs,
    )


def _require_parts(form: str, source: Source, target: Path) -> None:
    resources = missing_resources(form, source.base, target)
    missing = [*missing_parts(form, source.gguf_type), *resources]
    if missing:
        raise ExportError("; ".join(missing))
    target.parent.mkdir(parents=True, exist_ok=True)

"""Commands, printing and exit codes: the only package that prints."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from remote_trainer.cli.arguments import (
    AgainstOption,
    AllowChangedOption,
    ConfigArgument,
    FormatOption,
    GgufTypeOption,
    JsonOption,
    OutputFile,
    OutputFolder,
    PushOption,
    QuietOption,
    ResumeOption,
    RunArgument,
    SetOption,
    StorageOption,
    TargetArgument,
    VersionOption,
    WorkersOption,
    as_path,
    as_text,
)
from remote_trainer.cli.installed import add_to as add_installed
from remote_trainer.cli.progress import progress, reading
from remote_trainer.cli.remote import add_to as add_remote
from remote_trainer.cli.texts import (
    describe_eval,
    describe_plan,
    describe_proof,
    describe_resources,
)
from remote_trainer.errors import (
    EXIT_GUARD,
    EXIT_INTERRUPTED,
    ExportError,
    RemoteTrainerError,
    UserInputError,
)
from remote_trainer.processes import is_main

app = typer.Typer(
    help="Fine-tune language models with GRPO, using rewards from token log-probabilities.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; errors of this program become a message and an exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # It reports a missing optional package at every import; nothing here uses that package.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except UserInputError as error:
        count = len(error.problems)
        _complain(f"{count} problem{'s' if count > 1 else ''}:")
        for problem in error.problems:
            _complain(f"  {problem}")
        sys.exit(error.exit_code)
    except RemoteTrainerError as error:
        _complain(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)


@app.callback()
def options(version: VersionOption = False) -> None:
    """Fine-tune language models with GRPO, using rewards from token log-probabilities."""


@app.command()
def check(config: ConfigArgument, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """List every problem in config, data and batch sizes, without loading the model."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.check import batch_plan, check_config
    from remote_trainer.pipeline.resources import require_room, resource_plan

    try:
        settings = load_config(config, set_ or [])
        with reading() as watch:
            plan = check_config(settings, watch)
        plan.warnings.extend(require_room(settings, plan))
    except UserInputError as error:
        if not as_json:
            raise
        problems = [{"where": p.where, "message": p.message} for p in error.problems]
        _print(json.dumps({"ok": False, "problems": problems}, ensure_ascii=False))
        sys.exit(error.exit_code)
    batches = batch_plan(settings, len(plan.data.train))
    result = {"ok": True, "problems": [], "batches": batches, "data": plan.report}
    adapter = plan.targets.sentence() if plan.targets else None
    resources = resource_plan(settings, plan)
    if as_json:
        more = {
            "adapter": adapter,
            "rows": {"train": len(plan.data.train), "eval": len(plan.data.eval)},
            "resources": resources,
            "fast_path": plan.fast_path,
            "notes": plan.notes,
            "warnings": plan.warnings,
        }
        _print(json.dumps({**result, **more}, ensure_ascii=False))
        return
    _print(f"{config}: no problems")
    _print(describe_plan(batches, len(plan.data.train), len(plan.data.eval), plan.report))
    if adapter is not None:
        _print(adapter)
    if resources is not None:
        _print(describe_resources(resources))
    if plan.fast_path is not None:
        _print(f"CPU fast path, according to the model files: {plan.fast_path}")
    for warning in plan.warnings:
        _print(f"warning: {warning}")
    for note in plan.notes:
        _print(f"note: {note}")


@app.command()
def train(
    config: ConfigArgument,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    allow_changed: AllowChangedOption = False,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate before and after, write the adapter and the report."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.folder import is_finished
    from remote_trainer.pipeline.train import read_guard
    from remote_trainer.remote.start import start
    from remote_trainer.run_dir import RunDir

    stored = [] if storage is None else [f"distributed.storage={storage}"]
    settings = load_config(config, [*(set_ or []), *stored])
    folder = RunDir(settings.output_dir)
    trained = read_guard(folder)["step"] if is_finished(folder, settings.export) else None
    with progress(silent=quiet or as_json or not is_main()) as watch:
        text = config.read_text(encoding="utf-8")
        result = start(settings, text, resume, allow_changed, watch, workers)
    if not is_main():
        return
    guard = read_guard(folder)
    if as_json:
        seen = {key: guard[key] for key in ("stopped", "step", "result_step", "text")}
        found = {"run": str(folder), "eval": result, "guard": seen}
        _print(json.dumps(found, ensure_ascii=False))
    else:
        if trained == guard["step"] and resume == "auto":
            _print(f"{folder} is already finished; nothing was trained")
        _print(describe_eval(result))
        _print(f"adapter: {folder.adapter}\nreport:  {folder.report}")
        if guard["stopped"]:
            _complain(f"guard: {guard['text']}")
    if guard["stopped"]:
        raise typer.Exit(EXIT_GUARD)


@app.command()
def score(
    config: ConfigArgument,
    input_: Annotated[
        Path,
        typer.Option(
            "--input", metavar="FILE", parser=as_path, help="JSONL: prompts and completions."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="FILE", parser=as_path, help="JSONL: the same rows with rewards."
        ),
    ],
    set_: SetOption = None,
) -> None:
    """Compute the rewards of a config for given completions, without training."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.score import score_file

    settings = load_config(config, set_ or [])
    with progress(silent=False) as watch:
        count = score_file(settings, input_, output, watch)
    _print(f"{count} rows scored: {output}")


@app.command("eval")
def evaluate(
    target: TargetArgument,
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", parser=as_path, help="JSONL file with held-out rows."
        ),
    ],
    base: Annotated[
        bool, typer.Option("--base", help="Compare with the model without adapter.")
    ] = False,
    against: AgainstOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run or a model on held-out rows, and compare it with another."""
    if base and against is not None:
        raise UserInputError.at("--base", "cannot be combined with --against; write one of them")
    # Imported here to keep --help fast.
    from remote_trainer.pipeline.evaluate import evaluate_model

    with progress(silent=as_json) as watch:
        result = evaluate_model(target, data, base, against, set_ or [], watch)
    _print(json.dumps(result, ensure_ascii=False) if as_json else describe_eval(result))


@app.command()
def chat(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN_DIR|MODEL", parser=as_text, help="A run, a model or a .gguf file."
        ),
    ],
    base: Annotated[
        bool, typer.Option("--base", help="Also show answers of the model without adapter.")
    ] = False,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sampling temperature; 0: greedy.")
    ] = 0.7,
    set_: SetOption = None,
) -> None:
    """Chat with a trained model in the terminal."""
    # Imported here to keep --help fast.
    from remote_trainer.cli.chat import talk
    from remote_trainer.pipeline.chat import open_chat

    talk(*open_chat(target, base, set_ or []), temperature)


@app.command()
def export(
    target: RunArgument,
    form: FormatOption = "lora",
    gguf_type: GgufTypeOption = None,
    output: OutputFolder = None,
    push_to_hub: PushOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the trained model, and verify that the export matches it."""
    # Imported here to keep --help fast.
    from remote_trainer.pipeline.export import export_trained, why_failed

    with progress(silent=as_json) as watch:
        folder, proof = export_trained(target, form, gguf_type, output, watch, set_ or [])
    if as_json:
        _print(json.dumps({"folder": str(folder), **proof}, ensure_ascii=False))
    elif proof["verdict"] != "FAIL":
        _print(describe_proof(str(folder), proof))
    if proof["verdict"] == "FAIL":
        raise ExportError(why_failed(proof))
    if push_to_hub is not None:
        # Most exports are not uploaded.
        from remote_trainer.export.hub import push

        address = push(folder, push_to_hub)
        if not as_json:
            _print(f"uploaded: {address}")


@app.command()
def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(parser=as_path, help="Run folders; several are compared.")
    ],
    output: OutputFile = None,
) -> None:
    """Write one offline HTML file about one run, or comparing several."""
    # Imported here to keep --help fast.
    from remote_trainer.pipeline.report import report_on

    _print(str(report_on(run_dirs, output)))


def _print(text: str) -> None:
    print(text)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


add_installed(app)
add_remote(app)

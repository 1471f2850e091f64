"""The commands that work on configs, runs and models; `remote_trainer.cli.app` lists them all."""

from pathlib import Path
from typing import Annotated

import typer

from remote_trainer.cli.arguments import (
    AgainstOption,
    AllowChangedOption,
    ConfigArgument,
    FormatOption,
    GgufTypeOption,
    JsonLinesOption,
    JsonOption,
    OutputFile,
    OutputFolder,
    ProbeOption,
    PushOption,
    QuietOption,
    ResumeOption,
    RunArgument,
    SetOption,
    StorageOption,
    TargetArgument,
    WorkersOption,
    as_path,
    as_text,
)
from remote_trainer.cli.check import checked
from remote_trainer.cli.output import (
    complain,
    errors_as_events,
    harmless,
    say,
    say_event,
    say_json,
)
from remote_trainer.cli.progress import progress, training
from remote_trainer.cli.texts import (
    describe_diagnosis,
    describe_eval,
    describe_proof,
    describe_reward,
    describe_rewards,
    verdict_of,
)
from remote_trainer.errors import EXIT_FAILED, EXIT_GUARD, ExportError, UserInputError
from remote_trainer.processes import is_main


def check(
    config: ConfigArgument,
    set_: SetOption = None,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """List every problem in config, data and batch sizes, and what a run will do."""
    text, code = checked(config, set_ or [], probe, as_json)
    say(text if as_json else harmless(text))
    if code:
        raise typer.Exit(code)


def train(
    config: ConfigArgument,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    allow_changed: AllowChangedOption = False,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    quiet: QuietOption = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Train, evaluate before and after, write the adapter and the report."""
    if quiet and as_json:
        raise UserInputError.at("--quiet", "cannot be combined with --json; write one of them")
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.folder import is_finished
    from remote_trainer.pipeline.train import read_guard
    from remote_trainer.remote.start import start
    from remote_trainer.run_dir import RunDir

    stored = [] if storage is None else [f"distributed.storage={storage}"]
    with errors_as_events(as_json and is_main()):
        settings = load_config(config, [*(set_ or []), *stored])
        folder = RunDir(settings.output_dir)
        trained = read_guard(folder)["step"] if is_finished(folder, settings.export) else None
        text = config.read_text(encoding="utf-8")
        with training(folder, quiet or not is_main(), as_json) as watch:
            result = start(settings, text, resume, allow_changed, watch, workers)
    if not is_main():
        return
    guard = read_guard(folder)
    if as_json:
        seen = {key: guard[key] for key in ("stopped", "step", "result_step", "text")}
        say_event("result", run=str(folder), eval=result, guard=seen)
    elif quiet:
        say(f"{folder}: {verdict_of(result)}")
    else:
        if trained == guard["step"] and resume == "auto":
            say(f"{folder} is already finished; nothing was trained")
        say(describe_eval(result))
        say(f"adapter: {folder.adapter}\nreport:  {folder.report}")
    if guard["stopped"]:
        complain(f"guard: {guard['text']}")
        raise typer.Exit(EXIT_GUARD)


def score(
    config: ConfigArgument,
    input_: Annotated[
        Path,
        typer.Option("--input", metavar="FILE", parser=as_path, help="Prompts and completions."),
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
    say(f"{count} rows scored: {output}")


def evaluate(
    target: TargetArgument,
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", parser=as_path, help="Held-out rows, in any format."
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
    if as_json:
        say_json(result)
    else:
        say(describe_eval(result))


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
        say_json({"folder": str(folder), **proof})
    elif proof["verdict"] != "FAIL":
        say(describe_proof(str(folder), proof))
    if proof["verdict"] == "FAIL":
        raise ExportError(why_failed(proof))
    if push_to_hub is not None:
        # Most exports are not uploaded.
        from remote_trainer.export.hub import push

        address = push(folder, push_to_hub)
        if not as_json:
            say(f"uploaded: {address}")


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(parser=as_path, help="Run folders; several are compared.")
    ],
    output: OutputFile = None,
) -> None:
    """Write one offline HTML file about one run, or comparing several."""
    # Imported here to keep --help fast.
    from remote_trainer.pipeline.report import report_on

    say(str(report_on(run_dirs, output)))


def rewards(
    name: Annotated[
        str | None, typer.Argument(help="One reward; without it, all are listed.")
    ] = None,
) -> None:
    """List all rewards, or describe one: formula, range, options, known failure."""
    # Imported here to keep --help fast.
    from remote_trainer.docs_pages.reward_pages import reward_page
    from remote_trainer.rewards import REWARDS

    if name is None:
        say(describe_rewards([reward_page(each) for each in REWARDS]))
    else:
        say(describe_reward(reward_page(name)))


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(parser=as_path, help="A config; without it, the defaults are checked."),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, what works here, and how to fix the rest."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.doctor.diagnosis import diagnose, look_around

    if set_ and config is None:
        raise UserInputError.at("--set", "needs a config; write its path first")
    settings = load_config(config, set_ or []) if config else None
    diagnosis = diagnose(look_around(), settings)
    if as_json:
        say_json(diagnosis.as_json())
    else:
        say(describe_diagnosis(diagnosis, str(config) if config else "the default config"))
    if not diagnosis.ok:
        raise typer.Exit(EXIT_FAILED)

"""Commands, printing and exit codes: the only room that talks to people."""

import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_trainer.errors import (
    EXIT_GUARD,
    EXIT_INTERRUPTED,
    RemoteTrainerError,
    UserInputError,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from remote_trainer.pipeline.watcher import Watcher
    from remote_trainer.rewards.reference import RewardPage

app = typer.Typer(
    help="Fine-tune language models with GRPO, using rewards from token log-probabilities.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[Path, typer.Argument(help="YAML file with the settings.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.seed=1."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main() -> None:
    """Run the command line; every error of ours becomes a message and its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # It reports a missing optional package at every import; nothing here uses that package.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
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


@app.command()
def check(config: ConfigArgument, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """List every problem in config, data and batch arithmetic before a model is loaded."""
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.check import batch_plan, check_config

    try:
        settings = load_config(config, set_ or [])
        plan = check_config(settings)
    except UserInputError as error:
        if not as_json:
            raise
        problems = [{"where": p.where, "message": p.message} for p in error.problems]
        _print(json.dumps({"ok": False, "problems": problems}, ensure_ascii=False))
        sys.exit(error.exit_code)
    batches = batch_plan(settings, len(plan.data.train))
    result = {"ok": True, "problems": [], "batches": batches, "data": plan.report}
    if as_json:
        _print(json.dumps({**result, "notes": plan.notes}, ensure_ascii=False))
        return
    _print(f"{config}: no problems")
    _print(_describe_plan(batches, len(plan.data.train), len(plan.data.eval), plan.report))
    for note in plan.notes:
        _print(f"note: {note}")


@app.command()
def train(
    config: ConfigArgument,
    set_: SetOption = None,
    resume: Annotated[
        str, typer.Option(help="auto: go on with an unfinished run; never; or a checkpoint.")
    ] = "auto",
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Go on although config or data changed.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate before and after, write adapter and report."""
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.folder import is_finished
    from remote_trainer.pipeline.train import read_guard, run
    from remote_trainer.run_dir import RunDir

    settings = load_config(config, set_ or [])
    folder = RunDir(settings.output_dir)
    was_finished = is_finished(folder)
    with _progress(silent=quiet or as_json) as watch:
        result = run(
            settings,
            config.read_text(encoding="utf-8"),
            resume=resume,
            allow_changed=allow_changed,
            watch=watch,
        )
    guard = read_guard(folder)
    if as_json:
        seen = {key: guard[key] for key in ("stopped", "step", "result_step", "text")}
        told = {"run": str(folder), "eval": result, "guard": seen}
        _print(json.dumps(told, ensure_ascii=False))
    else:
        if was_finished and resume == "auto":
            _print(f"{folder} is finished already; nothing was trained")
        _print(_describe_eval(result))
        _print(f"adapter: {folder.adapter}\nreport:  {folder.report}")
        if guard["stopped"]:
            _complain(f"guard: {guard['text']}")
    if guard["stopped"]:
        raise typer.Exit(EXIT_GUARD)


@app.command()
def score(
    config: ConfigArgument,
    input_: Annotated[Path, typer.Option("--input", help="JSONL with prompt and completion.")],
    output: Annotated[Path, typer.Option("--output", help="The same rows with their rewards.")],
    set_: SetOption = None,
) -> None:
    """Judge given completions with the rewards of a config; nothing is trained."""
    from remote_trainer.config import load_config
    from remote_trainer.pipeline.score import score_file

    settings = load_config(config, set_ or [])
    with _progress(silent=False) as watch:
        count = score_file(settings, input_, output, watch)
    _print(f"{count} rows judged: {output}")


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="RUN_DIR|MODEL", help="What to evaluate.")],
    data: Annotated[Path, typer.Option("--data", help="JSONL file with held-out rows.")],
    base: Annotated[bool, typer.Option("--base", help="Compare with the adapter off.")] = False,
    against: Annotated[str | None, typer.Option(help="Compare with this run or model.")] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run or a model on held-out rows, and compare it with another."""
    if base and against is not None:
        raise UserInputError.at("--base", "and --against both name the other side; write one")
    from remote_trainer.pipeline.evaluate import evaluate_model

    with _progress(silent=as_json) as watch:
        result = evaluate_model(target, data, base, against, set_ or [], watch)
    _print(json.dumps(result, ensure_ascii=False) if as_json else _describe_eval(result))


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared.")],
    output: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
) -> None:
    """Write one offline HTML file about one run, or comparing several."""
    from remote_trainer.report import write_report
    from remote_trainer.run_dir import RunDir

    folders = [RunDir(path) for path in run_dirs]
    target = output or (folders[0].report if len(folders) == 1 else Path("report.html"))
    _print(str(write_report(folders, target)))


@app.command()
def rewards(
    name: Annotated[
        str | None, typer.Argument(help="One reward; without it all are listed.")
    ] = None,
) -> None:
    """List the rewards there are, or print all that is known about one."""
    from remote_trainer.rewards import REWARDS
    from remote_trainer.rewards.reference import reward_page

    if name is None:
        _print(_describe_rewards([reward_page(each) for each in REWARDS]))
    else:
        _print(_describe_reward(reward_page(name)))


@contextmanager
def _progress(silent: bool) -> Iterator["Watcher"]:
    """A bar with step, reward, KL and time left on a terminal; plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from remote_trainer.pipeline.watcher import Watcher

    console = Console(stderr=True)
    if silent:
        yield Watcher()
    elif not console.is_terminal:
        yield _plain_watcher(console)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=console) as bar:
            yield _bar_watcher(console, bar)


def _plain_watcher(console: "Console") -> "Watcher":
    """For log files: a line per stage, per update, and per tenth of a long count."""
    from remote_trainer.pipeline.watcher import Watcher

    def tell(text: str) -> None:
        console.out(text, highlight=False)

    return Watcher(
        stage=tell,
        line=lambda line, updates: tell(
            f"{_describe_line(line, updates)}  {_time_left(line, updates)}"
        ),
        progress=_every_tenth(tell),
    )


def _every_tenth(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    """Tells of a count each time another 10 % is done."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        tenths = 10 * done // total
        if tenths > told:
            tell(f"{10 * tenths} % of {total}")
        told = tenths % 10  # the next count begins anew

    return progress


def _bar_watcher(console: "Console", bar: "Progress") -> "Watcher":
    """For people who watch: one bar, of whatever is counted now."""
    from remote_trainer.pipeline.watcher import Watcher

    task = bar.add_task("", visible=False)

    def show(done: int, total: int, text: str = "") -> None:
        bar.update(task, completed=done, total=total, description=text, visible=True)

    return Watcher(
        stage=lambda text: console.out(text, style="bold"),
        line=lambda line, updates: show(line["step"], updates, _describe_line(line, updates)),
        progress=show,
    )


def _time_left(line: dict[str, Any], updates: int) -> str:
    """Training time left if the other updates take as long as this one."""
    seconds = round(line["seconds_step"] * (updates - line["step"]))
    return f"{seconds // 60}:{seconds % 60:02} left"


def _describe_line(line: dict[str, Any], updates: int) -> str:
    return (
        f"update {line['step']}/{updates}  reward {_number(line['reward'])}  "
        f"KL {_number(line['kl'])}  cut {_percent(line['clipped_share'])}  "
        f"{_number(line['seconds_step'])} s"
    )


def _describe_plan(
    batches: dict[str, Any], train_rows: int, eval_rows: int, data: dict[str, Any] | None
) -> str:
    trl = batches["trl"]
    lines = [
        f"rows: {train_rows} to train on, {eval_rows} held out",
        f"one update: {batches['prompts_per_update']} prompts, "
        f"{batches['completions_per_update']} completions, "
        f"at most {batches['most_tokens_per_update']} tokens",
        f"length: {batches['updates']} updates ({batches['updates_per_epoch']} a pass)",
        "what TRL is told: " + ", ".join(f"{name}={value}" for name, value in trl.items()),
    ]
    if data:
        for name, facts in data.items():
            tokens = facts["prompt_tokens"]
            lines.append(
                f"{name} prompts: {tokens['min']} to {tokens['max']} tokens "
                f"(median {tokens['median']:g}); left out: {facts['rows_left_out'] or 'none'}"
            )
    return "\n".join(lines)


def _describe_eval(result: dict[str, Any]) -> str:
    names = ("accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob", "reward")
    before, after = result.get("before"), result["after"]
    lines = []
    for name in (*names, "completion_tokens_mean") if after else ():
        old = f"{_number(before[name]):>8} -> " if before else ""
        lines.append(f"{name:24}{old}{_number(after[name]):>8}")
    if "verdict" in result:
        lines.append(result["verdict"]["text"])
    return "\n".join(lines)


def _describe_rewards(pages: "list[RewardPage]") -> str:
    """A table that wraps at words, so that nothing is cut at 80 columns or in a pipe."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", ratio=5, overflow="fold")
    table.add_column("needs", width=max(len(word) for p in pages for word in p.needs.split()))
    table.add_column("cost", ratio=4, overflow="fold")
    for page in pages:
        table.add_row(page.name, page.summary, page.needs, page.cost_in_brief)
    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as lines:
        console.print(table)
    return "\n".join(line.rstrip() for line in lines.get().rstrip().splitlines())


def _describe_reward(page: "RewardPage") -> str:
    from remote_trainer.rewards.reference import exception_lines

    options = [f"{o.name} ({_default_of(o.default)}): {o.meaning}" for o in page.options]
    sections = {
        "formula": [page.formula],
        "range": [page.range],
        "needs": [page.needs],
        "cost": [page.cost],
        "options": options or ["none of its own"],
        "source": [page.source],
        "known failure": [page.failure],
        "exceptions": exception_lines(page) or ["none"],
    }
    lines = [_wrapped(f"{page.name}: {page.summary}")]
    for title, texts in sections.items():
        hang = "    " if title in ("options", "exceptions") else "  "
        lines += ["", title, *(_wrapped(text, "  ", hang) for text in texts)]
    return "\n".join(lines)


def _default_of(default: str | None) -> str:
    return "must be written" if default is None else f"default {default}"


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    """Lines of at most 80 characters behind these indents; words stay whole."""
    return textwrap.fill(
        text,
        80,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _print(text: str) -> None:
    print(text)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()

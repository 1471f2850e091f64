"""Results, plans, rewards and updates as text for the terminal."""

import textwrap
from typing import TYPE_CHECKING, Any

from remote_trainer.metrics import EVALUATION_METRICS, in_rows

PLACES_SHOWN = 3

if TYPE_CHECKING:
    from rich.table import Table

    from remote_trainer.docs_pages.reward_pages import RewardPage
    from remote_trainer.doctor.diagnosis import Diagnosis
    from remote_trainer.models.hardware import Torch
    from remote_trainer.packages import Package


def time_left(line: dict[str, Any], updates: int) -> str:
    """Training time left if the other updates take as long as this one."""
    seconds = round(line["seconds_step"] * (updates - line["step"]))
    return f"{seconds // 60}:{seconds % 60:02} left"


def describe_update(line: dict[str, Any], updates: int) -> str:
    shown = [metric for metric in in_rows() if metric.brief]
    numbers = [percent(line[m.key]) if m.share else number(line[m.key]) for m in shown]
    parts = [metric.brief.format(text) for metric, text in zip(shown, numbers, strict=True)]
    return "  ".join([f"update {line['step']}/{updates}", *parts])


def describe_plan(
    batches: dict[str, Any], train_rows: int, eval_rows: int, data: dict[str, Any] | None
) -> str:
    trl = batches["trl"]
    lines = [
        f"rows: {train_rows} for training, {eval_rows} held out",
        f"one update: {batches['prompts_per_update']} prompts, "
        f"{batches['completions_per_update']} completions, "
        f"at most {batches['most_tokens_per_update']} tokens",
        f"length: {batches['updates']} updates ({batches['updates_per_epoch']} per epoch), "
        f"at most {batches['most_completion_tokens']} sampled tokens",
        "TRL settings: " + ", ".join(f"{name}={value}" for name, value in trl.items()),
    ]
    for name, facts in (data or {}).items():
        lines += _data_lines(name, facts)
    return "\n".join(lines)


def describe_resources(plan: dict[str, Any]) -> str:
    """Memory and disk space, by purpose."""
    gpu, cpu = plan["gpu"], plan["cpu"]
    here = plan["gpu_here"] or "none on this machine"
    lines = [
        f"CPU memory: {_gb(cpu['weights'])} for float32 weights and "
        f"{_gb(cpu['ordered_copies'])} for prepacked copies, plus updates (estimated for GPUs "
        "only)"
    ]
    if gpu is None:
        lines.append(f"GPU memory ({here}): no estimate for this type of model")
    else:
        bits = "4-bit weights" if gpu["in_4bit"] else "16-bit weights"
        parts = ", ".join(
            f"{name} {_gb(gpu[name])}"
            for name in ("weights", "adapter", "sampling", "update", "context")
        )
        lines.append(
            f"GPU memory ({here}): about {_gb(gpu['total'])} with {gpu['engine']} and {bits} "
            f"({parts}; sampling and update do not run at the same time)"
        )
    disk = ", ".join(f"{form} {_gb(size)}" for form, size in plan["disk"].items())
    return "\n".join([*lines, f"disk space for exports, at most: {disk}"])


def _gb(size: float) -> str:
    """Three digits: the estimate is no more precise."""
    return f"{size / 1e9:.3g} GB"


def _data_lines(name: str, facts: dict[str, Any]) -> list[str]:
    """Facts about the training or the evaluation rows."""
    tokens = facts["prompt_tokens"]
    lines = []
    if tokens["median"] is not None:
        sampled = tokens.get("estimated_from_rows")
        source = f", estimated from a random sample of {sampled} rows" if sampled else ""
        lines.append(
            f"{name} prompts: {tokens['min']} to {tokens['max']} tokens "
            f"(median {tokens['median']:g}{source}); "
            f"left out: {describe_left_out(facts) or 'none'}"
        )
    if as_text := facts.get("answers_taken_as_text"):
        lines.append(
            f"{name}: {as_text['rows']} answers are numbers or booleans, read as text "
            f"({_first(as_text['lines'], as_text['rows'])})"
        )
    if several := facts.get("several_answers"):
        lines.append(f"{name}: {several['rows']} rows have several accepted answers")
    if "also_in_train" in facts:
        lines.append(
            "held-out rows whose prompt is also in the training rows: "
            f"{facts['also_in_train']['rows']}"
        )
    return lines


def describe_left_out(facts: dict[str, Any]) -> str:
    """Reasons with their counts and first lines; empty if every row was kept."""
    return "; ".join(
        f"{reason}: {count} ({_first(facts['left_out'].get(reason, []), count)})"
        for reason, count in facts["rows_left_out"].items()
    )


def _first(places: list[str], count: int) -> str:
    more = ", ..." if count > PLACES_SHOWN else ""
    return ", ".join(places[:PLACES_SHOWN]) + more


def describe_eval(result: dict[str, Any]) -> str:
    before, after = result.get("before"), result["after"]
    printed = [metric.key for metric in EVALUATION_METRICS.values() if metric.printed]
    lines = []
    # A run of an older version did not measure all of them.
    for name in (name for name in printed if after and name in after):
        old = f"{number(before.get(name)):>8} -> " if before else ""
        lines.append(f"{name:24}{old}{number(after[name]):>8}")
    if "verdict" in result:
        lines.append(result["verdict"]["text"])
    return "\n".join(lines)


def verdict_of(result: dict[str, Any]) -> str:
    """Whether training helped, in one sentence."""
    return str(result["verdict"]["text"]) if "verdict" in result else "trained, not evaluated"


def describe_proof(folder: str, proof: dict[str, Any]) -> str:
    """What was compared, and what the verdict means if it is not PASS."""
    lines = [
        f"{proof['format']}: {folder}",
        f"{proof['verdict']}: reloaded in another process, {proof['tokens']} tokens of "
        f"{proof['questions']} held-out answers",
        f"distance to the trained model {number(proof['distance_mean'])} nats per token (at most "
        f"{number(proof['distance_limit'])} allowed), slope {number(proof['slope'])}",
        f"same most likely token {percent(proof['likeliest_agree'])}, same greedy answer "
        f"{percent(proof['greedy_agree'])}",
    ]
    if proof["verdict"] == "INCONCLUSIVE":
        lines.append(
            "Training changed the model less than this format's rounding error; the check cannot "
            "tell whether the adapter is included. Try a more precise format: merged_16bit, or a "
            "GGUF of type f16."
        )
    if window := proof.get("ignored_window"):
        lines.append(
            f"llama.cpp ignores the sliding window of this model: texts of more than {window} "
            "tokens get other log-probs there than in transformers or vLLM."
        )
    return "\n".join(lines)


def describe_rewards(pages: "list[RewardPage]") -> str:
    """A table that wraps at words; no text is cut at 80 columns or in a pipe."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", ratio=5, overflow="fold")
    table.add_column("needs", width=max(len(word) for p in pages for word in p.needs.split()))
    table.add_column("cost", ratio=4, overflow="fold")
    for page in pages:
        table.add_row(page.name, page.summary, page.needs, page.cost_in_brief)
    return _drawn(table)


def _drawn(table: "Table") -> str:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as lines:
        console.print(table)
    return "\n".join(line.rstrip() for line in lines.get().rstrip().splitlines())


def describe_reward(page: "RewardPage") -> str:
    # Imported here to keep --help fast.
    from remote_trainer.docs_pages.reward_pages import exception_lines

    options = [f"{o.name} ({_default_of(o.default)}): {o.meaning}" for o in page.options]
    sections = {
        "formula": [page.formula],
        "range": [page.range],
        "needs": [page.needs],
        "cost": [page.cost],
        "options": options or ["none"],
        "source": [page.source],
        "known failure": [page.failure],
        "exceptions": exception_lines(page) or ["none"],
    }
    lines = [_wrapped(f"{page.name}: {page.summary}")]
    for title, texts in sections.items():
        hang = "    " if title in ("options", "exceptions") else "  "
        lines += ["", title, *(_wrapped(text, "  ", hang) for text in texts)]
    return "\n".join(lines)


def describe_diagnosis(diagnosis: "Diagnosis", subject: str) -> str:
    """What is installed, which engine ``subject`` (a config, in words) gets, and what to fix."""
    parts = [
        _packages_table(diagnosis),
        _machine_lines(diagnosis),
        _engine_lines(diagnosis, subject),
    ]
    for kind, title in (("problem", "problems"), ("advice", "advice")):
        own = [finding for finding in diagnosis.findings if finding.kind == kind]
        lines = [
            _wrapped(f"- {finding.message}", "  ", "    ")
            + (f"\n      {finding.command}" if finding.command else "")
            for finding in own
        ]
        parts += ["\n".join([f"{title} ({len(own)})", *lines])] if own else []
    parts.append(
        f"{subject} can train here"
        if diagnosis.ok
        else f"{subject} cannot train here: see problems"
    )
    return "\n\n".join(part for part in parts if part)


def _packages_table(diagnosis: "Diagnosis") -> str:
    """A row per installed package that we require; missing ones are listed by extra."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("package", "installed", "required", "for"):
        table.add_column(title, overflow="fold")
    users: dict[str, list[str]] = {}
    shown: dict[str, Package] = {}
    for package in diagnosis.packages:
        users.setdefault(package.name, []).append(package.extra)
        if package.version is not None:
            # Required extras come first; an optional extra may have a narrower range.
            shown.setdefault(package.name, package)
    for name, package in shown.items():
        mark = "" if package.fits else " (!)"
        wanted = package.wanted or "any"
        table.add_row(name, f"{package.version}{mark}", wanted, ", ".join(users[name]))
    lines = [_drawn(table), ""] if shown else []
    lines += _version_set_lines(diagnosis)
    for extra, lacking in diagnosis.extras().items():
        state = "complete" if not lacking else f"lacks {', '.join(lacking)}"
        lines.append(_wrapped(f"{extra + ':':12} {state}", "", " " * 13))
    if any(diagnosis.extras().values()):
        lines.append("to complete an extra: python -m pip install 'remote-trainer[NAME]'")
    return "\n".join(lines)


def _version_set_lines(diagnosis: "Diagnosis") -> list[str]:
    """Which of the tested version sets is installed."""
    found = diagnosis.version_set
    if found is None:
        return []
    text = f"the {found.name} set ({found.file})"
    if found.file is None:
        text = "neither of the tested version sets: "
    elif found.differs:
        text += " except "
    return [_wrapped(f"{'versions:':12} {text}{', '.join(found.differs)}", "", " " * 13)]


def _machine_lines(diagnosis: "Diagnosis") -> str:
    state, machine, torch = diagnosis.state, diagnosis.state.machine, diagnosis.state.torch
    gpus = (torch.gpus if torch else ()) or machine.gpus
    usable = bool(torch and torch.gpus)
    named = [f"{gpu.name} ({gpu.memory_gb:.0f} GB)" for gpu in gpus]
    bf16 = "unknown without torch"
    if torch and torch.error is None:
        places = {"processor": torch.bf16_cpu, "GPU": torch.bf16_gpu}
        bf16 = ", ".join(name for name, can in places.items() if can) or "emulated (slow)"
    missing = "; ".join(state.llama_cpp_missing)
    facts = {
        "system": f"Python {state.python}, {state.system}",
        "processor": f"{machine.cores} core{'s' if machine.cores > 1 else ''}, "
        f"{machine.memory_gb:.1f} GB of memory",
        "threads": state.waiting,
        "cache": f"{machine.cache_free_gb:.1f} GB free on its disk; built-in model "
        + ("unpacked" if state.builtin_cached else "not downloaded yet"),
        "GPU": (", ".join(named) + ("" if usable else ", not usable")) if named else "none",
        "bfloat16": bf16,
        "fast path": _fast_path(torch),
        "llama.cpp": f"missing {missing}" if missing else "converter, quantiser and reader",
        "hub": (
            f"{'offline (HF_HUB_OFFLINE)' if state.hub.offline else 'online access allowed'}, "
            f"{'a' if state.hub.token else 'no'} token (no connection tested)"
        ),
    }
    if state.switched_off:
        facts["off here"] = f"{'; '.join(state.switched_off)}; all features work without them"
    return "\n".join(
        _wrapped(f"{name + ':':12} {text}", "", " " * 13) for name, text in facts.items()
    )


def _fast_path(torch: "Torch | None") -> str:
    """What the machine supports; ``check`` reports what a model supports."""
    if torch is None or torch.error is not None:
        return "unknown without torch"
    if torch.ordered_products:
        return "supported on this CPU; `check` reports what the model supports"
    return "off, because this torch has no oneDNN"


def _engine_lines(diagnosis: "Diagnosis", subject: str) -> str:
    engine = diagnosis.engine
    if engine is None:
        return ""
    bits = "4-bit" if engine.in_4bit else "unquantised"
    first = (
        f"{'engine:':12} {subject} trains with {engine.backend} and samples with "
        f"{engine.generation}, "
        f"{bits} weights"
    )
    reasons = [_wrapped(reason, " " * 13, " " * 13) for reason in engine.reasons]
    return "\n".join([_wrapped(first, "", " " * 13), *reasons])


def _default_of(default: str | None) -> str:
    return "required" if default is None else f"default {default}"


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    """Lines of at most 80 characters with these indents; words are not split."""
    return textwrap.fill(
        text,
        80,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"

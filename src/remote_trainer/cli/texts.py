"""What people read: results, plans, rewards and updates as text."""

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_trainer.rewards.reference import RewardPage


def time_left(line: dict[str, Any], updates: int) -> str:
    """Training time left if the other updates take as long as this one."""
    seconds = round(line["seconds_step"] * (updates - line["step"]))
    return f"{seconds // 60}:{seconds % 60:02} left"


def describe_update(line: dict[str, Any], updates: int) -> str:
    return (
        f"update {line['step']}/{updates}  reward {_number(line['reward'])}  "
        f"KL {_number(line['kl'])}  cut {_percent(line['clipped_share'])}  "
        f"{_number(line['seconds_step'])} s"
    )


def describe_plan(
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


def describe_eval(result: dict[str, Any]) -> str:
    names = ("accuracy_greedy", "accuracy_sampled", "exact_match", "answer_logprob", "reward")
    before, after = result.get("before"), result["after"]
    lines = []
    for name in (*names, "completion_tokens_mean") if after else ():
        old = f"{_number(before[name]):>8} -> " if before else ""
        lines.append(f"{name:24}{old}{_number(after[name]):>8}")
    if "verdict" in result:
        lines.append(result["verdict"]["text"])
    return "\n".join(lines)


def describe_proof(folder: str, proof: dict[str, Any]) -> str:
    """What was compared, and what a verdict that is no PASS means."""
    lines = [
        f"{proof['format']}: {folder}",
        f"{proof['verdict']}: read again in another process, {proof['tokens']} tokens of "
        f"{proof['questions']} held-out answers",
        f"distance to the trained model {_number(proof['distance_mean'])} nats a token (at most "
        f"{_number(proof['distance_limit'])} allowed), slope {_number(proof['slope'])}",
        f"same likeliest token {_percent(proof['likeliest_agree'])}, same greedy answer "
        f"{_percent(proof['greedy_agree'])}",
    ]
    if proof["verdict"] == "INCONCLUSIVE":
        lines.append(
            "Training moved the model by less than this format rounds, so nothing here can tell "
            "whether the adapter is in it."
        )
    return "\n".join(lines)


def describe_rewards(pages: "list[RewardPage]") -> str:
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


def describe_reward(page: "RewardPage") -> str:
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

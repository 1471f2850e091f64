"""The command ``check``: what it finds, as text or as one JSON object."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_trainer.cli.forecast_texts import describe_probe, describe_risks
from remote_trainer.cli.histogram import histogram_lines
from remote_trainer.cli.output import problems_of
from remote_trainer.cli.progress import progress, reading
from remote_trainer.cli.texts import describe_plan, describe_resources
from remote_trainer.errors import UserInputError

if TYPE_CHECKING:
    from remote_trainer.pipeline.check import Plan


def checked(config: Path, overrides: list[str], probed: bool, as_json: bool) -> tuple[str, int]:
    """(problems, plan and forecast as text, exit code); ``probed`` loads the model.

    Raises UserInputError that lists every problem; ``as_json`` they are part of the text.
    """
    try:
        found, plan = _look(config, overrides, probed, as_json)
    except UserInputError as error:
        if not as_json:
            raise
        found = {"ok": False, "problems": problems_of(error)}
        return json.dumps(found, ensure_ascii=False), error.exit_code
    if as_json:
        return json.dumps(found, ensure_ascii=False), 0
    return "\n".join(_lines(config, found, plan)), 0


def _look(
    config: Path, overrides: list[str], probed: bool, as_json: bool
) -> tuple[dict[str, Any], "Plan"]:
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.forecast.risks import risks_of
    from remote_trainer.forecast.without_model import known_of
    from remote_trainer.pipeline.check import batch_plan, check_config
    from remote_trainer.pipeline.resources import require_disk, require_room, resource_plan

    settings = load_config(config, overrides)
    with reading() as watch:
        plan = check_config(settings, watch)
    settings = plan.data.train_source.guess.apply(settings)
    plan.warnings.extend(require_room(settings, plan))
    require_disk(settings, plan)
    probe = None
    if probed:
        # It needs the packages of the extra `train` as soon as it is called.
        from remote_trainer.forecast.probe import probe as measure

        with progress(silent=as_json) as watch:
            probe = measure(settings, watch)
    risks = risks_of(known_of(settings, plan, probe))
    found = {
        "ok": True,
        "problems": [],
        "batches": batch_plan(settings, len(plan.data.train)),
        "data": plan.report,
        "adapter": plan.targets.sentence() if plan.targets else None,
        "rows": {"train": len(plan.data.train), "eval": len(plan.data.eval)},
        "resources": resource_plan(settings, plan),
        "fast_path": plan.fast_path,
        "forecast": {
            "probe": probe.as_json() if probe else None,
            "risks": [asdict(risk) for risk in risks],
        },
        "notes": plan.notes,
        "warnings": plan.warnings,
    }
    return found, plan


def _lines(config: Path, found: dict[str, Any], plan: "Plan") -> list[str]:
    rows, forecast = found["rows"], found["forecast"]
    lines = [
        f"{config}: no problems",
        describe_plan(found["batches"], rows["train"], rows["eval"], found["data"]),
    ]
    for name, facts in (found["data"] or {}).items():
        if name == "train" and (bars := histogram_lines(facts["prompt_tokens"]["histogram"])):
            lines += ["training prompts by tokens:", *bars]
    if found["adapter"] is not None:
        lines.append(found["adapter"])
    if found["resources"] is not None:
        lines.append(describe_resources(found["resources"]))
    if found["fast_path"] is not None:
        lines.append(f"CPU fast path, according to the model files: {found['fast_path']}")
    if forecast["probe"] is not None:
        lines.append(describe_probe(forecast["probe"]))
    else:
        lines.append("time and peak memory: add --probe, which loads the model and measures them")
    if forecast["risks"]:
        lines.append(describe_risks(forecast["risks"]))
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return lines + [f"note: {note}" for note in plan.notes]

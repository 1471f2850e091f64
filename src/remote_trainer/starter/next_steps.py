"""NEXT_STEPS.md of a new folder."""

import json
from collections.abc import Mapping
from typing import Any

from remote_trainer.starter.guess import Fields

_TEXT = """\
# Next steps

Run these commands in this folder. Training needs `python -m pip install 'remote-trainer[train]'`.

1. Edit `config.yaml`. The rows are in `{train}`, one JSON object per line:
   `{row}`
2. `remote-trainer check config.yaml` lists every problem without loading a model.
3. `remote-trainer train config.yaml` trains, and evaluates before and after. Repeat the command to
   resume an interrupted run. The result is in `{run}`; open `report.html` there first.
   `remote-trainer ui runs` shows the run in a browser.
4. `remote-trainer chat {run} --base` compares the trained model with the base model.
5. `remote-trainer export {run} --format gguf` writes a file for llama.cpp; other formats:
   `remote-trainer export --help`.

For another run, change `output_dir`. `remote-trainer rewards` lists all rewards.
"""


def next_steps(values: Mapping[str, Any], fields: Fields) -> str:
    """Markdown, with the paths and keys of the config's ``values``."""
    return _TEXT.format(
        train=values["data"]["train"], run=values["output_dir"], row=_example(fields)
    )


def _example(fields: Fields) -> str:
    if fields.conversations:
        return '{"messages": [{"role": "user", "content": "..."}, ...]}'
    keys = [fields.prompt, *([fields.answer] if fields.answer else [])]
    return json.dumps(dict.fromkeys(keys, "..."), ensure_ascii=False)

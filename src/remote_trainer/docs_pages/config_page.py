"""docs/config.md out of the schema, so that the page cannot say anything else."""

from typing import Any

from pydantic import BaseModel

from remote_trainer.config.schema import RunConfig
from remote_trainer.docs_pages.reward_pages import options_of, options_table, own_options
from remote_trainer.rewards import REWARDS, RewardConfig

_HEAD = """# Config reference

Made from the schema by `make docs`; `configs/default.yaml` holds the same defaults to copy from.
Unknown keys are refused, every problem is listed with its line, and `--set section.key=value`
overrides a file; `--set section.key=null` takes back what the file says. Relative paths are
relative to the working directory. `~` at the beginning of a path is the home folder, in the config
and in every argument; a variable that nobody replaced (`$HOME/runs` in a file or in single quotes)
is a problem.
"""

_REWARD = """## reward

One reward, or a list of rewards that are summed by `weight`; without this section it is one
`inverse_loss`. In a list, `--set reward.0.weight=2` names a reward by its place. What each reward
is and does: [rewards.md](rewards.md). All rewards have these keys:
"""

_OUTPUT_DIR = """## output_dir

The run folder (default `runs/run`). An unfinished run in it is continued, a finished one is not \
done again.
"""


def config_reference() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for name, field in RunConfig.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            parts.append(f"## {name}\n\n{options_table(options_of(section))}")
    parts += [_REWARD, options_table(options_of(RewardConfig)), *map(_reward, REWARDS), _OUTPUT_DIR]
    return "\n".join(parts)


def _reward(name: str) -> str:
    options = own_options(REWARDS[name])
    table = options_table(options) if options else "No keys of its own.\n"
    return f"### type: {name}\n\n[What it is](rewards.md#{name})\n\n{table}"


def _section_of(annotation: Any) -> type[BaseModel] | None:
    members = (annotation, *getattr(annotation, "__args__", ()))
    return next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)

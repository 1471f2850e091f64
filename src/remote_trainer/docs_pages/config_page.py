"""Generates docs/config.md from the schema."""

from remote_trainer.config.schema import RunConfig
from remote_trainer.config.section import section_of
from remote_trainer.docs_pages.reward_pages import options_of, options_table, own_options
from remote_trainer.rewards import REWARDS, RewardConfig

_HEAD = """# Config reference

Generated from the schema by `make docs`. `configs/default.yaml` has the same defaults to copy from.
Unknown keys are refused, and every problem is listed with its line. `--set section.key=value`
overrides the file; `--set section.key=null` cancels the value in the file. Relative paths are
relative to the working directory. `~` at the beginning of a path is the home folder, in the config
and in every argument. A variable that the shell did not expand (`$HOME/runs` in a file or in
single quotes) is an error.

`remote-trainer schema > config.schema.json` writes the JSON schema of a config. With this first
line in a config, editors with a YAML language server (in VS Code: the extension "YAML" of Red Hat)
complete keys, show their meaning and mark typing errors:

    # yaml-language-server: $schema=config.schema.json

`remote-trainer init` writes both.
"""

_REWARD = """## reward

One reward, or a list of rewards that are summed by `weight`. The default is one `inverse_loss`. In
a list, `--set reward.0.weight=2` names a reward by its index. [rewards.md](rewards.md) describes
each reward. All rewards have these keys:
"""

_OUTPUT_DIR = """## output_dir

The run folder (default `runs/run`). An unfinished run in it is resumed; a finished one \
is not repeated.
"""


def config_reference() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for name, field in RunConfig.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            parts.append(f"## {name}\n\n{options_table(options_of(section))}")
    parts += [_REWARD, options_table(options_of(RewardConfig)), *map(_reward, REWARDS), _OUTPUT_DIR]
    return "\n".join(parts)


def _reward(name: str) -> str:
    options = own_options(REWARDS[name])
    table = options_table(options) if options else "No keys of its own.\n"
    return f"### type: {name}\n\n[Description](rewards.md#{name})\n\n{table}"

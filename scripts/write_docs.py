"""Write what is made from code: pages of docs/ and the guard's levels in configs/default.yaml."""

import sys
from pathlib import Path

from remote_trainer.docs_pages.config_page import config_reference
from remote_trainer.docs_pages.guard_page import default_config, guard_reference
from remote_trainer.docs_pages.reward_pages import rewards_reference
from remote_trainer.docs_pages.run_folder_page import run_folder_reference

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from guard_levels import fired, recorded_runs  # noqa: E402 (it is found in benchmarks/)

if __name__ == "__main__":
    docs = ROOT / "docs"
    (docs / "config.md").write_text(config_reference(), encoding="utf-8")
    (docs / "run_folder.md").write_text(run_folder_reference(), encoding="utf-8")
    (docs / "rewards.md").write_text(rewards_reference(), encoding="utf-8")
    guard, default = docs / "guard.md", ROOT / "configs/default.yaml"
    page = guard_reference(guard.read_text(encoding="utf-8"), fired(recorded_runs()))
    guard.write_text(page, encoding="utf-8")
    default.write_text(default_config(default.read_text(encoding="utf-8")), encoding="utf-8")

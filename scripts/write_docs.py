"""Write the pages of docs/ that are made from code."""

from pathlib import Path

from remote_trainer.docs_pages.config_page import config_reference
from remote_trainer.docs_pages.reward_pages import rewards_reference
from remote_trainer.docs_pages.run_folder_page import run_folder_reference

if __name__ == "__main__":
    docs = Path(__file__).parents[1] / "docs"
    (docs / "config.md").write_text(config_reference(), encoding="utf-8")
    (docs / "run_folder.md").write_text(run_folder_reference(), encoding="utf-8")
    (docs / "rewards.md").write_text(rewards_reference(), encoding="utf-8")

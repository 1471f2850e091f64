"""TRL's GRPOTrainer with our checkpoints instead of its own: hooks that write and read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import GRPOTrainer

from remote_trainer.activity import ACTIVITY
from remote_trainer.config import RunConfig
from remote_trainer.faults import fault_point
from remote_trainer.processes import gathered, is_main, process_count, process_index
from remote_trainer.run_dir import RunDir
from remote_trainer.supervision.disk import checkpoint_bytes, room_for
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer.checkpoint import RandomStreams
from remote_trainer.trainer.groups import GroupFilter
from remote_trainer.trainer.guard_callback import GuardCallback
from remote_trainer.trainer.stop import signals_held


class CheckpointHooks(GRPOTrainer):  # type: ignore[misc]
    """Subclasses set the attributes below before training begins."""

    _folder: RunDir
    _config: RunConfig
    _group_filter: GroupFilter
    guard_callback: GuardCallback

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        streams = gathered([RandomStreams.now()]) if process_count() > 1 else []
        if is_main():
            self._save_in_main(streams[1:])

    def _save_in_main(self, others: Sequence[RandomStreams]) -> None:
        """``others``: random streams of the other processes."""
        self._folder.require_present()
        target = self._folder.checkpoint(self.state.global_step)
        numbers = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        room = room_for(target, checkpoint_bytes(numbers))
        with ACTIVITY.during("writing a checkpoint"), signals_held(), room:
            self._write_checkpoint(target, others)
        checkpoint.prune(self._folder, self._config.training.keep_checkpoints)

    def _write_checkpoint(self, target: Path, others: Sequence[RandomStreams]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.iterdir():
            stale.unlink()
        checkpoint.write_adapter(target, self.accelerator.unwrap_model(self.model))
        counters = {**self._counters(), "guarding": self.guard_callback.save(target)}
        checkpoint.write_state(target, self.optimizer, self.lr_scheduler, counters)
        checkpoint.write_random(target, others)
        self.state.save_to_json(str(target / checkpoint.TRAINER_STATE))
        fault_point("save:trainer_state")
        processes = {checkpoint.PROCESSES: process_count()} if others else {}
        checkpoint.write_manifest(target, {"step": self.state.global_step, **processes})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.read_adapter(Path(resume_from_checkpoint), model or self.model)

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None, /) -> None:
        if checkpoint_folder is not None:
            counters = checkpoint.read_state(
                Path(checkpoint_folder), self.optimizer, self.lr_scheduler
            )
            self._step = counters["_step"]
            self._group_filter.restore(counters["group_filter"])

    def restore_guard(self, folder: Path | None) -> None:
        """Restore the guard from a checkpoint; before training, because a run that the guard has
        stopped must not continue."""
        if folder is not None:
            self.guard_callback.load(folder, checkpoint.read_counters(folder)["guarding"])

    def _counters(self) -> dict[str, Any]:
        return {"_step": self._step, "group_filter": self._group_filter.state()}

    def _load_rng_state(self, checkpoint_folder: str | None, /) -> None:
        if checkpoint_folder is not None:
            checkpoint.restore_random(Path(checkpoint_folder), process_index())

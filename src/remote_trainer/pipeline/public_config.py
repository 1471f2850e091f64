"""A config for publication, without local paths."""

import os
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.pipeline.base_model import BaseRecord


def public_config(config: RunConfig, record: BaseRecord | None) -> RunConfig:
    """Absolute paths become names; a base that is a folder becomes ``./name``, which cannot be
    mistaken for a model id of the hub."""
    name = record.name if record else config.model.name
    local = Path(name).is_absolute() or os.path.isdir(name) or (record and record.path)
    adapter, data = config.model.adapter, config.data
    model = config.model.model_copy(
        update={
            "name": f"./{Path(name).name}" if local else name,
            "adapter": adapter and _bare(adapter),
        }
    )
    if data is not None:
        files = {"train": _bare(data.train), "eval": data.eval and _bare(data.eval)}
        data = data.model_copy(update=files)
    return config.model_copy(
        update={"model": model, "data": data, "output_dir": _bare(config.output_dir)}
    )


def _bare(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path

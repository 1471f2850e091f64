"""A config and facts of a run for publication, without local paths."""

import os
from pathlib import Path

from remote_trainer.config import RunConfig, dump_config
from remote_trainer.data.readers.hub import source_name
from remote_trainer.export.model_card import CardFacts
from remote_trainer.pipeline.base_model import BaseRecord, read_record
from remote_trainer.run_dir import RunDir, read_result


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


def card_facts(config: RunConfig, run: RunDir) -> CardFacts:
    """Facts about the model from the run folder, without local paths."""
    data = read_result(run.data_report, train=dict)
    config = public_config(config, read_record(run))
    rows = config.with_data()
    return CardFacts(
        base_model=config.model.name,
        adapter=config.model.adapter or "",
        adapter_sha256=data.get("adapter_sha256") or "",
        reward=" + ".join(f"{reward.weight:g} x {reward.type}" for reward in config.reward),
        data=source_name(rows.train),
        data_sha256=str(data["train"].get("sha256")),
        updates=read_result(run.guard, result_step=int)["result_step"],
        config_yaml=dump_config(config),
        versions=read_result(run.environment),
        evaluation=read_result(run.eval),
        system_prompt=rows.system_prompt,
        chat_template_kwargs=rows.chat_template_kwargs,
    )

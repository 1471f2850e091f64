"""Which engine a config gets."""

from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.engine.backend import AdapterSettings, Backend, LoadSettings


def load_backend(model_folder: Path, config: RunConfig) -> Backend:
    """The engine the config asks for, with the model in memory."""
    from remote_trainer.engine.transformers_backend import TransformersBackend

    return TransformersBackend.load(
        model_folder,
        LoadSettings(
            dtype=config.model.dtype,
            load_in_4bit=config.model.load_in_4bit,
            trust_remote_code=config.model.trust_remote_code,
            max_tokens_per_batch=config.scoring.max_tokens_per_batch,
            chat_template_kwargs=config.data.chat_template_kwargs if config.data else None,
        ),
    )


def adapter_settings(config: RunConfig) -> AdapterSettings:
    """The adapter the config asks for."""
    return AdapterSettings(
        r=config.lora.r,
        alpha=config.lora.alpha,
        dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        seed=config.training.seed,
    )

"""Who speaks in a chat: a run, a model or a GGUF file, and its base beside it."""

from pathlib import Path

from remote_trainer.engine.model_facts import ModelFacts
from remote_trainer.engine.resolve import resolve_model
from remote_trainer.engine.speaker import GgufSpeaker, ModelSpeaker, Speaker
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.evaluate import config_of
from remote_trainer.pipeline.positions import context_length
from remote_trainer.run_dir import RunDir

GGUF_CONTEXT = 2048


def open_chat(target: str, base: bool) -> tuple[dict[str, Speaker], str | None]:
    """(speakers by name, the system prompt they were trained with).

    ``base`` adds the model without its adapter. Raises UserInputError where there is none.
    """
    if target.endswith(".gguf"):
        if not Path(target).is_file():
            raise UserInputError.at(target, "no such file; name a .gguf file")
        if base:
            raise UserInputError.at("--base", "a GGUF holds no adapter to switch off; leave it out")
        return {"model": GgufSpeaker(Path(target), GGUF_CONTEXT)}, None
    config, folder = config_of(target), RunDir(target)
    if base and not folder.started:
        raise UserInputError.at("--base", f"{target} is no run, so it has no adapter to switch off")
    if folder.started and not folder.adapter.exists():
        raise UserInputError.at(target, "the run has no adapter yet; finish it with `train`")
    model_folder = resolve_model(config.model.name, config.model.revision)
    backend = load_backend(model_folder, config)
    if not backend.codec.has_chat_template:
        raise UserInputError.at(target, "the model has no chat template, so it cannot chat")
    length = context_length(config, ModelFacts(model_folder))
    speakers: dict[str, Speaker] = {}
    if folder.started:
        backend.load_adapter(folder.adapter)
        if base:
            speakers["base"] = ModelSpeaker(backend, length, adapter=False)
    speakers["trained" if folder.started else "model"] = ModelSpeaker(backend, length)
    return speakers, config.data.system_prompt if config.data else None

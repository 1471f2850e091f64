"""Who speaks in a chat: a run, a model or a GGUF file, and its base beside it."""

from collections.abc import Sequence
from pathlib import Path

from remote_trainer.engine.speaker import GgufSpeaker, ModelSpeaker, Speaker
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.base_model import base_of
from remote_trainer.pipeline.evaluate import config_of
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.run_dir import RunDir

GGUF_CONTEXT = 2048


def open_chat(
    target: str, base: bool, overrides: Sequence[str] = ()
) -> tuple[dict[str, Speaker], str | None]:
    """(speakers by name, the system prompt they were trained with).

    ``base`` adds the model without its adapter. Raises UserInputError where there is none.
    """
    if target.endswith(".gguf"):
        if not Path(target).is_file():
            raise UserInputError.at(target, "no such file; name a .gguf file")
        if base:
            raise UserInputError.at("--base", "a GGUF holds no adapter to switch off; leave it out")
        require_packages("chat", ("xllamacpp",), "gguf")
        return {"model": GgufSpeaker(Path(target), GGUF_CONTEXT)}, None
    require_packages("chat", TO_LOAD)
    config, folder = config_of(target, overrides), RunDir(target)
    if base and not folder.started:
        raise UserInputError.at("--base", f"{target} is no run, so it has no adapter to switch off")
    if folder.started and not folder.adapter.exists():
        raise UserInputError.at(target, "the run has no adapter yet; finish it with `train`")
    backend = load_backend(base_of(folder, config), config)
    if not backend.codec.has_chat_template:
        raise UserInputError.at(target, "the model has no chat template, so it cannot chat")
    length = config.model.max_seq_length
    speakers: dict[str, Speaker] = {}
    if folder.started:
        backend.load_adapter(folder.adapter)
        if base:
            speakers["base"] = ModelSpeaker(backend, length, adapter=False)
    speakers["trained" if folder.started else "model"] = ModelSpeaker(backend, length)
    return speakers, config.data.system_prompt if config.data else None

"""Who speaks in a chat: a run, a model or a GGUF file, and its base beside it."""

from pathlib import Path

from remote_trainer.data.refusals import fault_problem, system_prompt_problem
from remote_trainer.engine.backend import Backend
from remote_trainer.engine.codec import Codec, FaultyTemplate, TemplateRefusal
from remote_trainer.engine.light_tokenizer import light_codec
from remote_trainer.engine.resolve import resolve_model
from remote_trainer.engine.speaker import GgufSpeaker, ModelSpeaker, Speaker
from remote_trainer.errors import EngineError, UserInputError
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.evaluate import config_of
from remote_trainer.records import Message, Prompt
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
        try:
            return {"model": GgufSpeaker(Path(target), GGUF_CONTEXT)}, None
        except EngineError as error:
            raise UserInputError.at(target, str(error)) from error
    config, folder = config_of(target), RunDir(target)
    if base and not folder.started:
        raise UserInputError.at("--base", f"{target} is no run, so it has no adapter to switch off")
    if folder.started and not folder.adapter.exists():
        raise UserInputError.at(target, "the run has no adapter yet; finish it with `train`")
    system = config.data.system_prompt if config.data else None
    model_folder = resolve_model(config.model.name, config.model.revision)
    options = config.data.chat_template_kwargs if config.data else {}
    if light := light_codec(model_folder, options):
        _require_chat(light, target, system)  # before the model is loaded
    backend = load_backend(model_folder, config)
    _require_chat(backend.codec, target, system)
    length = _context(backend, config.model.max_seq_length)
    speakers: dict[str, Speaker] = {}
    if folder.started:
        backend.load_adapter(folder.adapter)
        if base:
            speakers["base"] = ModelSpeaker(backend, length, adapter=False)
    speakers["trained" if folder.started else "model"] = ModelSpeaker(backend, length)
    return speakers, system


def _context(backend: Backend, asked: int) -> int:
    """Tokens that a conversation may have: as asked, but no more than the model has positions."""
    config = backend.model.config.get_text_config()
    return min(asked, getattr(config, "max_position_embeddings", None) or asked)


def _require_chat(codec: Codec, target: str, system: str | None) -> None:
    """Raises UserInputError where not even a greeting can be rendered."""
    if not codec.has_chat_template:
        raise UserInputError.at(target, "the model has no chat template, so it cannot chat")
    greeting: Prompt = [Message(role="user", content="Hello")]
    try:
        codec.prompt_text(greeting)
    except FaultyTemplate as fault:
        raise UserInputError([fault_problem(fault)]) from fault
    except TemplateRefusal as refusal:
        raise UserInputError.at(target, f"{refusal}; choose another model") from refusal
    if system is not None:
        try:
            codec.prompt_text([Message(role="system", content=system), *greeting])
        except TemplateRefusal as refusal:
            raise UserInputError([system_prompt_problem(system, refusal)]) from refusal

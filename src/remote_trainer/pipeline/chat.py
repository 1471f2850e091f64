"""The speakers of a chat: a run, a model or a GGUF file, and optionally its base."""

from collections.abc import Sequence
from pathlib import Path

from remote_trainer.checks.positions import context_length
from remote_trainer.data.refusals import fault_problem, system_prompt_problem
from remote_trainer.engines.chat_model import BackendChatModel, ChatModel, GgufChatModel
from remote_trainer.errors import EngineError, UserInputError
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.pipeline.base_model import base_of
from remote_trainer.pipeline.evaluate import config_of
from remote_trainer.pipeline.extras import TO_LOAD, require_packages
from remote_trainer.records import Message, Prompt
from remote_trainer.run_dir import RunDir
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import (
    FaultyTemplate,
    PromptTokenizer,
    TemplateRefusal,
)

GGUF_CONTEXT = 2048


def open_chat(
    target: str, base: bool, overrides: Sequence[str] = ()
) -> tuple[dict[str, ChatModel], str | None]:
    """(speakers by name, the system prompt they were trained with).

    ``base`` adds the model without its adapter. Raises UserInputError if there is no adapter.
    """
    if target.endswith(".gguf"):
        if not Path(target).is_file():
            raise UserInputError.at(target, "no such file; name a .gguf file")
        if base:
            raise UserInputError.at(
                "--base", ("a GGUF has no separate adapter to disable; omit --base")
            )
        require_packages("chat", ("xllamacpp",), "gguf")
        try:
            return {"model": GgufChatModel(Path(target), GGUF_CONTEXT)}, None
        except EngineError as error:
            raise UserInputError.at(target, str(error)) from error
    require_packages("chat", TO_LOAD)
    config, folder = config_of(target, overrides), RunDir(target)
    if base and not folder.started:
        raise UserInputError.at(
            "--base",
            f"{target} is not a run folder, so it has no adapter to disable; omit --base",
        )
    if folder.started and not folder.adapter.exists():
        raise UserInputError.at(target, "the run has no adapter yet; finish it with `train`")
    system = config.data.system_prompt if config.data else None
    model_folder = base_of(folder, config)
    options = config.data.chat_template_kwargs if config.data else {}
    if light := light_codec(model_folder, options):
        _require_chat(light, target, system)  # before the model is loaded
    backend = load_backend(model_folder, config)
    _require_chat(backend.prompt_tokenizer, target, system)
    length = context_length(config, ModelFacts(model_folder))
    speakers: dict[str, ChatModel] = {}
    if folder.started:
        backend.load_adapter(folder.adapter)
        if base:
            speakers["base"] = BackendChatModel(backend, length, adapter=False)
    speakers["trained" if folder.started else "model"] = BackendChatModel(backend, length)
    return speakers, system


def _require_chat(prompt_tokenizer: PromptTokenizer, target: str, system: str | None) -> None:
    """Raises UserInputError if not even a greeting can be rendered."""
    if not prompt_tokenizer.has_chat_template:
        raise UserInputError.at(target, "the model has no chat template, which chat needs")
    greeting: Prompt = [Message(role="user", content="Hello")]
    try:
        prompt_tokenizer.prompt_text(greeting)
    except FaultyTemplate as fault:
        raise UserInputError([fault_problem(fault)]) from fault
    except TemplateRefusal as refusal:
        raise UserInputError.at(target, f"{refusal}; choose another model") from refusal
    if system is not None:
        try:
            prompt_tokenizer.prompt_text([Message(role="system", content=system), *greeting])
        except TemplateRefusal as refusal:
            raise UserInputError([system_prompt_problem(system, refusal)]) from refusal

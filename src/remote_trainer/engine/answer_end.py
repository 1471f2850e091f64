"""What a chat template writes behind an answer, and so what a model has learnt to end with."""

from jinja2 import TemplateError

from remote_trainer.engine.codec import Codec
from remote_trainer.errors import UserInputError
from remote_trainer.records import TokenIds

_QUESTION, _ANSWER = "Which word ends this?", "remote-trainer-looks-behind-this"


def ids_behind_an_answer(codec: Codec) -> TokenIds | None:
    """Ids between an answer and the end of the conversation.

    None without a template, and with one that does not write a plain question and its answer.
    """
    if not codec.has_chat_template:
        return None
    conversation = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _ANSWER},
    ]
    try:
        text = codec.tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=False, **codec.chat_template_kwargs
        )
    except (
        TemplateError,
        UserInputError,
    ):  # refuses this conversation, which says nothing of others
        return None
    _, found, behind = str(text).rpartition(_ANSWER)
    return codec.encode(behind) if found else None

"""What a chat template writes behind an answer, and so what a model has learnt to end with."""

from remote_trainer.engine.codec import Codec, TemplateRefusal
from remote_trainer.records import Message, Prompt, TokenIds

_QUESTION, _ANSWER = "Which word ends this?", "remote-trainer-looks-behind-this"


def ids_behind_an_answer(codec: Codec) -> TokenIds | None:
    """Ids between an answer and the end of the conversation.

    None without a template, and with one that does not write a plain question and its answer.
    """
    if not codec.has_chat_template:
        return None
    conversation: Prompt = [
        Message(role="user", content=_QUESTION),
        Message(role="assistant", content=_ANSWER),
    ]
    try:
        text = codec.prompt_text(conversation, add_generation_prompt=False)
    except TemplateRefusal:  # of this conversation, which says nothing of others
        return None
    _, found, behind = text.rpartition(_ANSWER)
    return codec.encode(behind) if found else None

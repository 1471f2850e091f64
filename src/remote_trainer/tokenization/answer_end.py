"""The ids that a chat template writes after an answer, which the model has learned to end with."""

from remote_trainer.records import Message, Prompt, TokenIds
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer, TemplateRefusal

_QUESTION, _ANSWER = "Which word ends this?", "remote-trainer-looks-behind-this"


def ids_after_answer(prompt_tokenizer: PromptTokenizer) -> TokenIds | None:
    """Ids between an answer and the end of the conversation.

    None without a template, or if it does not render a simple question and answer.
    """
    if not prompt_tokenizer.has_chat_template:
        return None
    conversation: Prompt = [
        Message(role="user", content=_QUESTION),
        Message(role="assistant", content=_ANSWER),
    ]
    try:
        text = prompt_tokenizer.prompt_text(conversation, add_generation_prompt=False)
    except TemplateRefusal:  # only this conversation is refused
        return None
    _, found, after = text.rpartition(_ANSWER)
    return prompt_tokenizer.encode(after) if found else None

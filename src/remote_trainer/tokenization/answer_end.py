"""What a chat template writes behind an answer, and so what a model has learnt to end with."""

from remote_trainer.records import Message, Prompt, TokenIds
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer, TemplateRefusal

_QUESTION, _ANSWER = "Which word ends this?", "remote-trainer-looks-behind-this"


def ids_behind_an_answer(prompt_tokenizer: PromptTokenizer) -> TokenIds | None:
    """Ids between an answer and the end of the conversation.

    None without a template, and with one that does not write a plain question and its answer.
    """
    if not prompt_tokenizer.has_chat_template:
        return None
    conversation: Prompt = [
        Message(role="user", content=_QUESTION),
        Message(role="assistant", content=_ANSWER),
    ]
    try:
        text = prompt_tokenizer.prompt_text(conversation, add_generation_prompt=False)
    except TemplateRefusal:  # of this conversation, which says nothing of others
        return None
    _, found, behind = text.rpartition(_ANSWER)
    return prompt_tokenizer.encode(behind) if found else None

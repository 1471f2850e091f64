"""Score requests for the likelihood of the reference answer."""

from remote_trainer.records import Sample, Scorer, ScoreRequest, TokenIds

CONNECTOR = "\nThe correct answer is: "


def answer_after_completion(
    sample: Sample, connector_ids: TokenIds, answer_ids: TokenIds, scored_by: Scorer
) -> ScoreRequest:
    """log p(answer | prompt, completion, connector); an open thinking block is closed first."""
    context = sample.prompt_ids + sample.content_ids + sample.thinking.close
    return ScoreRequest.of(context + connector_ids, answer_ids, scored_by)


def answer_after_prompt(
    sample: Sample, connector_ids: TokenIds, answer_ids: TokenIds, scored_by: Scorer
) -> ScoreRequest:
    """log p(answer | prompt, connector): the same without the completion."""
    context = sample.prompt_ids + sample.thinking.close_prompt
    return ScoreRequest.of(context + connector_ids, answer_ids, scored_by)

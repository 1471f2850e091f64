"""Where the reference answer is put when its likelihood is asked for."""

from remote_trainer.records import Sample, Scorer, ScoreRequest, TokenIds

CONNECTOR = "\nAnswer: "


def behind_completion(
    sample: Sample, connector_ids: TokenIds, answer_ids: TokenIds, scored_by: Scorer
) -> ScoreRequest:
    """log p(answer | prompt, completion, connector); an open thinking block is closed first."""
    seen = sample.prompt_ids + sample.content_ids + sample.thinking.close
    return ScoreRequest.of(seen + connector_ids, answer_ids, scored_by)


def behind_prompt(
    sample: Sample, connector_ids: TokenIds, answer_ids: TokenIds, scored_by: Scorer
) -> ScoreRequest:
    """log p(answer | prompt, connector): what was known without the completion."""
    seen = sample.prompt_ids + sample.thinking.close_prompt
    return ScoreRequest.of(seen + connector_ids, answer_ids, scored_by)

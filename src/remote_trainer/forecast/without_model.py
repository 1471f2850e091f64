"""What the check knows of a run, for the risks that need no model."""

from remote_trainer.config import RunConfig
from remote_trainer.forecast.answer_lengths import answer_lengths
from remote_trainer.forecast.figures import Probe
from remote_trainer.forecast.risks import Known
from remote_trainer.pipeline.check import Plan
from remote_trainer.tokenization.light_tokenizer import light_codec


def known_of(config: RunConfig, plan: Plan, probe: Probe | None) -> Known:
    """The length of the answers needs the tokenizer of a model that is on this machine."""
    rows, answers = plan.data.train, None
    kwargs = config.with_data().chat_template_kwargs
    if plan.base is not None and (tokenizer := light_codec(plan.base, kwargs)) is not None:
        answers = answer_lengths(config, rows, tokenizer)
    kept = plan.report["train"]["rows_kept"] if plan.report else len(rows)
    return Known(config, kept, answers, probe)

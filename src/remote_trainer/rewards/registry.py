"""All rewards by public name. A new reward needs its own file and a line here."""

from remote_trainer.rewards.base import RewardConfig
from remote_trainer.rewards.formulas.answer_likelihood import AnswerLikelihood
from remote_trainer.rewards.formulas.chrf import ChrF
from remote_trainer.rewards.formulas.exact_match import ExactMatch
from remote_trainer.rewards.formulas.inverse_loss import InverseLoss
from remote_trainer.rewards.formulas.length_limit import LengthLimit
from remote_trainer.rewards.formulas.majority_vote import MajorityVote
from remote_trainer.rewards.formulas.random_reward import Random
from remote_trainer.rewards.formulas.regex import Regex
from remote_trainer.rewards.formulas.repetition import Repetition
from remote_trainer.rewards.formulas.self_certainty import SelfCertainty
from remote_trainer.rewards.formulas.supervised import Supervised
from remote_trainer.rewards.formulas.token_f1 import TokenF1
from remote_trainer.rewards.formulas.user_function import UserFunction

REWARDS: dict[str, type[RewardConfig]] = {
    "inverse_loss": InverseLoss,
    "supervised": Supervised,
    "answer_likelihood": AnswerLikelihood,
    "self_certainty": SelfCertainty,
    "token_f1": TokenF1,
    "chrf": ChrF,
    "exact_match": ExactMatch,
    "majority_vote": MajorityVote,
    "length_limit": LengthLimit,
    "repetition": Repetition,
    "regex": Regex,
    "random": Random,
    "function": UserFunction,
}

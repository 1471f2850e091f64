"""Small honest models over a language of one id per word, to test what rewards prefer."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from types import SimpleNamespace
from typing import Any

import torch

from remote_trainer.inference.scoring import score_requests
from remote_trainer.records import EncodedRow, Prompt, Row, ScoreRequest, Thinking, TokenIds
from remote_trainer.rewards.reference_answer import CONNECTOR

PAD, EOS, BOS, MARK = range(4)
V = 1000
COPIED, ASKED = 0.6, 0.1

QUESTION = "Which house do they mean ?"
RIGHT = "an old red house behind our quiet river"
WRONG = "some tall green tower above that busy road"
HALF, QUARTER = "an old red house", "an old"
PREAMBLE = (
    "well let me think about this for quite a while because there were several things here worth "
    "knowing today"
)
WHERE_IS_PARIS = "Paris is in France . Where is Paris ?"
COUNTRIES = (
    "Spain Italy Norway France Greece Poland Latvia Ireland Malta Austria Croatia Serbia Finland "
    "Sweden Denmark Estonia Belgium Portugal Hungary Romania"
)
FACTS = {
    "Who wrote Emma ?": "Jane Austen",
    "Who wrote Walden ?": "Henry David Thoreau",
    "Which ocean is deepest ?": "Pacific Ocean",
    "Which peak is highest ?": "Mount Everest",
    "What do pandas eat ?": "bamboo shoots",
    "What orbits Mars ?": "Phobos and Deimos",
    "Who painted Guernica ?": "Pablo Picasso",
    "Where is Fuji ?": "Honshu island",
}
JUNK = [f"{a}{b}{a}k" for a in "zjvwx" for b in "qzjkvwxpmcfd"]


class Words:
    """A prompt_tokenizer with one id per word, and a model that finds nothing likely."""

    eos_ids: TokenIds = (EOS,)

    def __init__(self, adds_bos: bool = False) -> None:
        self.prompt_tokenizer = self.model = self
        self.bos: TokenIds = (BOS,) if adds_bos else ()
        self.ids = {"<pad>": PAD, "</s>": EOS, "<s>": BOS, "<assistant>": MARK}
        self.requests: list[ScoreRequest] = []

    def encode(self, text: str, *, special_tokens: bool = False) -> TokenIds:
        ids = tuple(self.ids.setdefault(word, len(self.ids)) for word in text.split())
        return (*self.bos, *ids) if special_tokens else ids

    def encode_prompt(self, prompt: Prompt, tools: Any = None) -> TokenIds:
        return (*self.bos, *self.encode(str(prompt)), MARK)

    def prompt_text(self, prompt: Prompt, tools: Any = None) -> str:
        return str(prompt)

    def encode_row(self, row: Row) -> EncodedRow:
        return EncodedRow(row, self.encode_prompt(row.prompt), self.prompt_text(row.prompt))

    def decode(self, ids: Sequence[int]) -> str:
        words = list(self.ids)
        return " ".join(words[i] for i in ids if i > MARK)

    def without_eos(self, ids: TokenIds) -> TokenIds:
        return ids[:-1] if ids[-1:] == (EOS,) else ids

    def thinking(self, prompt_ids: TokenIds, content_ids: TokenIds) -> Thinking:
        return Thinking()

    def score(self, requests: Sequence[ScoreRequest], on_progress: Any = None) -> Any:
        self.requests += requests
        return [
            tuple(
                self.number(request.measure, request.context + request.continuation[:t], target)
                for t, target in enumerate(request.target)
            )
            for request in requests
        ]

    def number(self, measure: str, seen: TokenIds, target: int) -> float:
        rest, likely = self.distribution(seen)
        if measure == "logprob":
            return math.log(likely.get(target, rest))
        counted = [*((p, 1) for p in likely.values()), (rest, V - len(likely))]
        return -sum(count * math.log(V * p) for p, count in counted) / V

    def distribution(self, seen: TokenIds) -> tuple[float, Mapping[int, float]]:
        """The probability of most ids, and that of the likely ones."""
        return 1 / V, {}


class CopyLM(Words):
    """A small honest model: it copies what it sees, and knows how texts that it has read go on.

    p(x | seen) = COPIED * share(x) + known * [x comes next in a text it has read] + what is left,
    the same for all V ids. share(x) counts x among the words seen, those of the prompt ASKED times
    as much as those behind it. So a right completion makes the answer likely wherever it stands,
    other words dilute that, and the prompt has a say. BOS is not seen. With ``known`` 0 nothing but
    the completion makes an answer likely.
    """

    def __init__(self, adds_bos: bool = False, known: float = 0.0) -> None:
        super().__init__(adds_bos)
        self.known = known
        read = [RIGHT, WRONG, *FACTS.values(), *COUNTRIES.split()]
        self.next = dict(pair for text in read for pair in pairwise((*self.encode(text), EOS)))

    def distribution(self, seen: TokenIds) -> tuple[float, Mapping[int, float]]:
        border = seen.index(MARK) if MARK in seen else 0
        p = {x: COPIED * share for x, share in self.shares(seen[:border], seen[border:]).items()}
        if (following := self.next.get(seen[-1])) is not None:
            p[following] = p.get(following, 0.0) + self.known
        rest = (1 - sum(p.values())) / V
        return rest, {x: likely + rest for x, likely in p.items()}

    def shares(self, asked: TokenIds, said: TokenIds) -> Mapping[int, float]:
        weights: defaultdict[int, float] = defaultdict(float)
        for x, weight in [*((x, ASKED) for x in asked), *((x, 1.0) for x in said)]:
            if x > MARK:
                weights[x] += weight
        total = sum(weights.values())
        return {x: weight / total for x, weight in weights.items()}


class KnowingLM(CopyLM):
    """It recognises the answer ``France`` among whatever is named, so lists do not dilute it.

    Each further candidate makes it a little surer that one of them is wanted.
    """

    def shares(self, asked: TokenIds, said: TokenIds) -> Mapping[int, float]:
        (france,) = self.encode("France")
        return {france: min(1.0, 0.8 + 0.01 * len(said))} if france in said else {}


class Fixed(Words):
    """Its log-probabilities are given, one after the other; a certainty is one without its sign."""

    def __init__(self, logprobs: Sequence[float]) -> None:
        super().__init__()
        self.logprobs = cycle(logprobs)

    def number(self, measure: str, seen: TokenIds, target: int) -> float:
        return next(self.logprobs) if measure == "logprob" else abs(next(self.logprobs))


class ByHeart(Words):
    """Certain of each next id of two texts, through the real scoring; else it knows nothing."""

    training, device = False, torch.device("cpu")

    def __init__(self, connector_text: str = CONNECTOR) -> None:
        super().__init__()
        question, right, connector = map(self.encode, (QUESTION, RIGHT, connector_text))
        told = (*question, MARK, *right)
        texts = [(*told, *connector, *right), (*told, EOS)]
        self.next = {text[:i]: text[i] for text in texts for i in range(1, len(text))}

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def score(self, requests: Sequence[ScoreRequest], on_progress: Any = None) -> Any:
        return score_requests(self, requests, PAD, max_tokens_per_batch=10_000)

    def __call__(self, input_ids: Any, attention_mask: Any, logits_to_keep: int, **_: Any) -> Any:
        logits_NKV = torch.zeros(len(input_ids), logits_to_keep, V)
        for row_L, mask_L, logits_KV in zip(input_ids, attention_mask, logits_NKV, strict=True):
            ids = tuple(row_L[mask_L == 1].tolist())
            for k in range(logits_to_keep):
                following = self.next.get(ids[: len(ids) - logits_to_keep + k + 1])
                if following is not None:
                    logits_KV[k, following] = 1000.0
        return SimpleNamespace(logits=logits_NKV)

"""Every reward of the catalogue a second time, from the formulas in the docstrings alone.

Nothing of remote_trainer is imported, so that a fault there cannot hide here: float64, one row at a
time without padding or caches, the full log-softmax. Slow on purpose. `random` has no value to
compare with and `function` is the caller's own; both are missing.
"""

import copy
import math
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Prompt = str | list[dict[str, str]]
Ids = list[int]

CONNECTOR = "\nThe correct answer is: "
PUNCTUATION = "`" + "".join(
    c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "P"
)
ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Row(NamedTuple):
    """A prompt, a completion and its reference answer; ``ids`` win over ``text``."""

    prompt: Prompt
    answer: str = ""
    text: str = ""
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Read:
    """A row as token ids; ``content`` is the completion without end-of-sequence."""

    prompt: Ids
    completion: Ids
    content: Ids
    text: str
    answer: Ids
    answer_text: str
    cut: bool


class Reference:
    """Values of rewards for rows, by a float64 copy of ``policy`` (and of ``base``, where given).

    ``base`` is what `scored_by: reference` means: the model without its adapter.
    """

    def __init__(self, tokenizer: Any, policy: Any, base: Any = None) -> None:
        self.tokenizer = tokenizer
        self.models = {
            "policy": exact(policy),
            "reference": exact(policy if base is None else base),
        }
        self.single: dict[str, Callable[..., float]] = {
            "inverse_loss": self.inverse_loss,
            "self_certainty": self.self_certainty,
            "supervised": self.supervised,
            "answer_likelihood": self.answer_likelihood,
            "token_f1": token_f1,
            "chrf": chrf,
            "exact_match": exact_match,
            "length_limit": length_limit,
            "repetition": repetition,
            "regex": regex,
        }

    @property
    def rewards(self) -> set[str]:
        """Names of the rewards that are implemented here."""
        return {*self.single, "majority_vote"}

    def values(
        self,
        rows: Sequence[Row],
        *,
        type: str,
        limit: int | None = None,
        gate: Sequence[str] = ("not_looping",),
        truncated: str = "floor",
        **options: Any,
    ) -> list[float]:
        """One value per row; empty, cut and gated completions get the reward's minimum."""
        read = [self.read(row, limit) for row in rows]
        invalid = [
            not r.text.strip() or (r.cut and truncated == "floor") or fails(gate, r) for r in read
        ]
        if type == "majority_vote":
            return majority_vote(read, invalid, **options)
        return [
            minimum(type, options) if floor else self.single[type](r, **options)
            for r, floor in zip(read, invalid, strict=True)
        ]

    # -- ids --------------------------------------------------------------------------------------

    def ids(self, text: str) -> Ids:
        """Ids of literal text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, prompt: Prompt) -> Ids:
        """Text with what the tokenizer adds, but never two BOS; messages through the template."""
        if not isinstance(prompt, str):
            return list(
                self.tokenizer.apply_chat_template(
                    prompt, add_generation_prompt=True, return_dict=False
                )
            )
        ids = list(self.tokenizer(prompt)["input_ids"])
        bos = self.tokenizer.bos_token_id
        return ids[1:] if ids[:2] == [bos, bos] else ids

    def read(self, row: Row, limit: int | None = None) -> Read:
        """The row in ids; only sampled ids can be cut, and only where the limit is known."""
        eos = self.tokenizer.eos_token_id
        completion = self.ids(row.text) if row.ids is None else list(row.ids)
        content = list(completion)
        while content and content[-1] == eos:
            content.pop()
        at_limit = row.ids is not None and limit is not None and len(completion) >= limit
        return Read(
            prompt=self.prompt_ids(row.prompt),
            completion=completion,
            content=content,
            text=row.text
            if row.ids is None
            else self.tokenizer.decode(content, skip_special_tokens=True),
            answer=self.ids(row.answer),
            answer_text=row.answer,
            cut=at_limit and completion[-1] != eos,
        )

    # -- what the model says ----------------------------------------------------------------------

    def table(self, context: Sequence[int], target: Sequence[int], scored_by: str) -> Tensor:
        """log p in nats of every id in place of each of ``target``, (T, V)."""
        ids = torch.tensor([[*context, *target]])
        with torch.no_grad():
            logits = self.models[scored_by](ids, use_cache=False).logits[0]
        logprobs: Tensor = logits.log_softmax(-1)
        assert logprobs.dtype == torch.float64
        return logprobs[len(context) - 1 : len(context) - 1 + len(target)]

    def logprobs(
        self, context: Sequence[int], target: Sequence[int], scored_by: str
    ) -> list[float]:
        """log p(target[t] | context, target[:t])."""
        table = self.table(context, target, scored_by)
        return [float(table[t, token]) for t, token in enumerate(target)]

    def certainties(
        self, context: Sequence[int], target: Sequence[int], scored_by: str
    ) -> list[float]:
        """KL(uniform, p) = sum_j 1/V log((1/V) / p_j) in place of each of ``target``."""
        table = self.table(context, target, scored_by)
        size = table.shape[-1]
        return [float((-math.log(size) - row).sum() / size) for row in table]

    # -- rewards that ask the model ---------------------------------------------------------------

    def inverse_loss(self, r: Read, scored_by: str = "reference", c_max: float = 10.0) -> float:
        return max(mean(self.logprobs(r.prompt, r.completion, scored_by)), -c_max)

    def self_certainty(self, r: Read, scored_by: str = "policy", c_max: float = 50.0) -> float:
        certainties = self.certainties(r.prompt, r.completion, scored_by)
        return mean([min(value, c_max) for value in certainties])

    def supervised(
        self,
        r: Read,
        formula: str = "coverage_prob",
        alignment: str = "after_completion",
        connector: str = CONNECTOR,
        scored_by: str = "reference",
        fluency_weight: float = 1.0,
        length_weight: float = 0.0,
        c_max: float = 5.0,
    ) -> float:
        share = min(1.0, len(r.content) / len(r.answer))
        between = self.ids(connector)
        if alignment == "positional":
            # Row t of the table is what the model would say in place of completion token t.
            table = self.table(r.prompt, r.content[: len(r.answer)], scored_by)
            logprobs = [float(table[t, r.answer[t]]) for t in range(len(table))]
        else:
            logprobs = self.logprobs([*r.prompt, *r.content, *between], r.answer, scored_by)
        if formula == "coverage_prob":
            covered = share * mean([math.exp(value) for value in logprobs])
            if alignment == "positional":
                return covered
            own = math.exp(
                sum(self.logprobs(r.prompt, r.completion, scored_by)) / (8 + len(r.answer))
            )
            brief = (8 + len(r.answer)) / (8 + max(len(r.content), len(r.answer)))
            weighted = (covered + fluency_weight * own) / (1 + fluency_weight)
            return float(brief**length_weight * weighted)
        if formula == "coverage_ce":
            return share * mean([max(v, -c_max) for v in logprobs]) - (1 - share) * c_max
        assert formula == "coverage_information"
        alone = self.logprobs([*r.prompt, *between], r.answer, scored_by)
        assert mean(alone) < -0.1, "answers known beforehand are a case of their own"
        return clipped(1 - mean(logprobs) / mean(alone))

    def answer_likelihood(
        self,
        r: Read,
        formula: str = "auto",
        connector: str = CONNECTOR,
        scored_by: str = "reference",
        baseline: bool = False,
        c_max: float = 10.0,
    ) -> float:
        if formula == "auto":
            formula = "mean_prob" if len(r.answer) <= 32 else "mean_logprob"

        def score(completion: Ids) -> float:
            context = [*r.prompt, *completion, *self.ids(connector)]
            logprobs = self.logprobs(context, r.answer, scored_by)
            if formula == "mean_prob":
                return mean([math.exp(value) for value in logprobs])
            return 1 + mean([max(value, -c_max) / c_max for value in logprobs])

        return clipped(score(r.content) - score([])) if baseline else score(r.content)


# -- rewards that ask the text alone --------------------------------------------------------------


def token_f1(r: Read) -> float:
    said, true = words(r.text), words(r.answer_text)
    left = list(true)
    for word in said:
        if word in left:
            left.remove(word)
    common = len(true) - len(left)
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(true)
    return 2 * precision * recall / (precision + recall)


def chrf(r: Read, word_order: int = 0) -> float:
    """Mean precision and mean recall over the orders that both sides have, then F with beta 2."""
    said, true = ("".join(text.split()) for text in (r.text, r.answer_text))
    said_words, true_words = (chrf_words(text) for text in (r.text, r.answer_text))
    pairs: list[tuple[Sequence[Any], Sequence[Any], int]] = [
        *((said, true, n) for n in range(1, 7)),
        *((said_words, true_words, n) for n in range(1, word_order + 1)),
    ]
    precisions, recalls = [], []
    for one, other, n in pairs:
        a, b = ngrams(one, n), ngrams(other, n)
        if a and b:
            both = (Counter(a) & Counter(b)).total()
            precisions.append(both / len(a))
            recalls.append(both / len(b))
    if not sum(recalls):
        return 0.0
    precision, recall = mean(precisions), mean(recalls)
    return (1 + 2**2) * precision * recall / (2**2 * precision + recall)


def exact_match(r: Read) -> float:
    same = words(r.text) == words(r.answer_text)
    return 1.0 if same or as_number(r.text) == as_number(r.answer_text) is not None else 0.0


def as_number(text: str) -> float | None:
    """A minus sign counts as one."""
    try:
        return float(unicodedata.normalize("NFKC", text).replace("\u2212", "-"))
    except ValueError:
        return None


def length_limit(
    r: Read,
    max_tokens: int | None = None,
    answer_ratio: float = 2.0,
    slack: int = 8,
    buffer: int = 16,
) -> float:
    """A share of a token in the limit counts as a whole one."""
    limit = max_tokens or slack + math.ceil(answer_ratio * len(r.answer))
    return -min(1.0, max(0.0, len(r.content) - limit) / buffer)


def repetition(r: Read, n: int = 3) -> float:
    """Words are what white space parts, in lower case, punctuation included."""
    grams = ngrams(r.text.lower().split(), n)
    return len(set(grams)) / len(grams) - 1 if grams else 0.0


def regex(r: Read, pattern: str, match: str = "search") -> float:
    found = re.search(pattern if match == "search" else f"\\A(?:{pattern})\\Z", r.text)
    return 0.0 if found is None else 1.0


def majority_vote(
    read: Sequence[Read], invalid: Sequence[bool], extract: str | None = None
) -> list[float]:
    """Rows of one prompt are a group; who says nothing neither votes nor wins."""
    said: list[list[str]] = []
    for r, floor in zip(read, invalid, strict=True):
        text = r.text
        if extract is not None:
            last = next(reversed(list(re.finditer(extract, text))), None)
            text = "" if last is None else (last[min(1, last.re.groups)] or "")
        said.append([] if floor else words(text))
    values = []
    for r, answer in zip(read, said, strict=True):
        group = [other for o, other in zip(read, said, strict=True) if o.prompt == r.prompt]
        most = max(group.count(other) for other in group if other) if any(group) else 0
        values.append(1.0 if answer and group.count(answer) == most else 0.0)
    return values


# -- shared ---------------------------------------------------------------------------------------


def exact(model: Any) -> Any:
    """A float64 copy on the CPU; the weights are those of ``model``, rounding included."""
    return copy.deepcopy(model).cpu().double().eval()


def with_adapter(base: Any, adapted: Any, scaling: float) -> Any:
    """A float64 copy of ``base`` with W + scaling * B A for each LoRA pair of ``adapted``."""
    model, factors = exact(base), adapted.state_dict()
    for name in factors:
        head, lora, tail = name.partition(".lora_A.")
        if lora:
            b, a = (factors[f"{head}.{k}.{tail}"].cpu().double() for k in ("lora_B", "lora_A"))
            module = model.get_submodule(head.removeprefix("base_model.model."))
            module.weight.data += scaling * b @ a
    return model


def minimum(type: str, options: dict[str, Any]) -> float:
    """What an empty completion gets."""
    if type == "inverse_loss":
        return -float(options.get("c_max", 10.0))
    if type == "supervised" and options.get("formula") == "coverage_ce":
        return -float(options.get("c_max", 5.0))
    return -1.0 if type in ("length_limit", "repetition") else 0.0


def fails(gate: Sequence[str], r: Read) -> bool:
    """Whether one of the named conditions is not met."""
    return (
        ("ended" in gate and r.cut)
        or ("not_empty" in gate and not r.text.strip())
        or ("not_looping" in gate and loops(r.text.strip()))
    )


def loops(text: str) -> bool:
    """Ten words ten times, or an end of 40+ characters, half the text or more: a phrase 4 times."""
    if any(count >= 10 for count in Counter(ngrams(text.split(), 10)).values()):
        return True
    ends = [text[start:] for start in range(len(text) // 2 + 1) if len(text) - start >= 40]
    return any(
        end[:-period] == end[period:] for end in ends for period in range(1, len(end) // 4 + 1)
    )


def words(text: str) -> list[str]:
    """Words after NFKC and lower case, without punctuation around them; -5 keeps its sign, and a
    Chinese character is a word of its own.

    Where that leaves nothing, the text is its punctuation.
    """
    found = []
    text = unicodedata.normalize("NFKC", text).lower()
    chinese = {c for c in text if unicodedata.name(c, "").startswith("CJK UNIFIED IDEOGRAPH")}
    parts = "".join(f" {c} " if c in chinese else c for c in text).split()
    for part in parts:
        tail = part.lstrip(PUNCTUATION)
        negative = part[: len(part) - len(tail)].endswith("-") and tail[:1].isdigit()
        word = ("-" if negative else "") + tail.rstrip(PUNCTUATION)
        if word:
            found.append(word)
    return found or parts


def chrf_words(text: str) -> list[str]:
    """Words as sacrebleu parts them: one mark is cut off at the end, else one in front."""
    found = []
    for word in text.split():
        if len(word) > 1 and word[-1] in ASCII_PUNCTUATION:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in ASCII_PUNCTUATION:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def ngrams(items: Sequence[Any], n: int) -> list[tuple[Any, ...]]:
    """All runs of ``n`` items, in order."""
    return [tuple(items[start : start + n]) for start in range(len(items) - n + 1)]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def clipped(value: float) -> float:
    """``value`` moved into [0, 1]."""
    return min(1.0, max(0.0, value))

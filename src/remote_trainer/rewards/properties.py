"""Properties that every reward guarantees; each reward declares its own exceptions."""

PROPERTIES = {
    "P1": "an empty completion gets the minimum, and a right one gets more",
    "P2": "a longer part of the right answer never scores lower; the whole answer scores highest",
    "P3": "junk after the answer does not raise the reward; junk alone scores below a quarter of "
    "an answer that is new to the model",
    "P4": "values are finite and in the declared range, for any probabilities",
    "P5": "short inputs (no token, one token, one-token answers) give finite values",
    "P6": "with a one-token answer, right and wrong completions get different rewards",
    "P7": "the reward depends on the prompt",
    "P8": "alignment is exact: shifting the targets by one token changes the reward",
    "P9": "the same text scores the same with and without a leading BOS token",
    "P10": "the boundary of prompt and completion does not matter: each id has one score",
    "P11": "the sampled ids are scored; their text is never tokenised again",
    "P12": "padding and batching do not change the reward",
    "P13": "the end-of-sequence id counts once, even if it is also the padding id",
    "P14": "a truncated completion gets the minimum",
    "P15": "a looping completion gets the minimum",
    "P16": "the position of the right answer in the completion does not matter",
    "P17": "listing every candidate does not score above the right answer",
    "P18": "a group of equal rewards does not change the weights",
    "P19": "a completion that cannot be judged gets None, alone and in a sum",
    "P20": "a reward does not depend on the other completions of the call",
    "P21": "a right answer scores above a wrong one",
}


def every_property(reason: str) -> dict[str, str]:
    """All properties as exceptions, for rewards that guarantee none."""
    return dict.fromkeys(PROPERTIES, reason)

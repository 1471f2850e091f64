"""What every reward of the catalogue promises; exceptions are declared by the rewards."""

PROPERTIES = {
    "P1": "an empty completion gets the minimum, and less than a right one",
    "P2": "more of the right answer is never worse; the whole answer is best",
    "P3": "junk behind the answer does not pay; junk scores below a quarter of a new answer",
    "P4": "values are finite and lie in the declared range, whatever the probabilities",
    "P5": "short inputs (no token, one token, one-token answers) give finite values",
    "P6": "one-token answers teach: right and wrong completions differ",
    "P7": "the prompt matters",
    "P8": "alignment is exact: moving the targets by one token shows",
    "P9": "the same text scores the same with and without a BOS token in front",
    "P10": "the border of prompt and completion does not matter: as many scores as ids",
    "P11": "the ids that were sampled are scored, never their text tokenised again",
    "P12": "padding and batching do not matter",
    "P13": "the end-of-sequence id counts once, also where it is the padding id",
    "P14": "a truncated completion gets the minimum",
    "P15": "a loop gets the minimum",
    "P16": "the place of the right answer in the completion does not matter",
    "P17": "naming every candidate does not beat the right answer",
    "P18": "a group without differences trains nothing",
    "P19": "what cannot be judged gives None, alone and in a sum",
    "P20": "a reward does not depend on the other completions of the call",
    "P21": "a right answer scores above a wrong one",
}


def every_property(reason: str) -> dict[str, str]:
    """All properties as exceptions, for rewards that promise nothing."""
    return dict.fromkeys(PROPERTIES, reason)

"""Numbers that generation or training made already, so that no pass is spent on them again."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from remote_trainer.records import Sample, Scorer, ScoreRequest
from remote_trainer.rewards.base import Scores

SOURCES = ("sampling", "kl_term", "update", "pass")
Score = Callable[[Sequence[ScoreRequest]], Sequence[Scores]]


class LogprobCache:
    """Answers by request. ``sources`` counts where the numbers asked for came from."""

    def __init__(self) -> None:
        self._known: dict[ScoreRequest, tuple[str, Scores]] = {}
        self._promised: set[ScoreRequest] = set()
        self._keep_promise: Callable[[], None] = lambda: None
        self.sources = Counter(dict.fromkeys(SOURCES, 0))

    def add_completion(
        self, source: str, sample: Sample, scored_by: Scorer, logprobs: Scores
    ) -> None:
        """Note the log-prob of each id of a completion given its prompt, as ``source`` found it."""
        request = ScoreRequest.of(sample.prompt_ids, sample.completion_ids, scored_by)
        self.add(source, request, logprobs)

    def add(self, source: str, request: ScoreRequest, scores: Scores) -> None:
        """Note the answer to a request, as ``source`` found it."""
        assert len(scores) == len(request.target), "one number per target"
        self._known[request] = (source, scores)

    def promise_completions(self, samples: Iterable[Sample], keep: Callable[[], None]) -> None:
        """``keep`` can add what the policy finds of these completions; called if it is asked."""
        self._promised = {ScoreRequest.of(s.prompt_ids, s.completion_ids) for s in samples}
        self._keep_promise = keep

    def answer(
        self, requests: Iterable[ScoreRequest], score: Score
    ) -> Mapping[ScoreRequest, Scores]:
        """All answers; ``score`` is asked once, for distinct requests that are not known."""
        wanted = list(dict.fromkeys(requests))
        if not self._promised.isdisjoint(wanted):
            self._promised = set()
            self._keep_promise()
        unknown = [request for request in wanted if request not in self._known]
        answers = dict(zip(unknown, score(unknown) if unknown else (), strict=True))
        self.sources["pass"] += len(unknown)
        for request in wanted:
            if request in self._known:
                source, answers[request] = self._known[request]
                self.sources[source] += 1
        return answers

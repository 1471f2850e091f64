"""Log-probs that sampling or training already computed, so that no forward pass is repeated."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from remote_trainer.records import Sample, Scorer, ScoreRequest
from remote_trainer.rewards.base import Scores

SOURCES = ("sampling", "kl_term", "update", "pass")
Score = Callable[[Sequence[ScoreRequest]], Sequence[Scores]]


class LogprobCache:
    """Scores by request. ``sources`` counts how many requests each source answered."""

    def __init__(self) -> None:
        self._known: dict[ScoreRequest, tuple[str, Scores]] = {}
        self._deferred: set[ScoreRequest] = set()
        self._compute_deferred: Callable[[], None] = lambda: None
        self.sources = Counter(dict.fromkeys(SOURCES, 0))

    def add_completion(
        self, source: str, sample: Sample, scored_by: Scorer, logprobs: Scores
    ) -> None:
        """Add the log-prob of each completion id given the prompt, computed by ``source``."""
        request = ScoreRequest.of(sample.prompt_ids, sample.completion_ids, scored_by)
        self.add(source, request, logprobs)

    def add(self, source: str, request: ScoreRequest, scores: Scores) -> None:
        """Add the scores of a request, computed by ``source``."""
        assert len(scores) == len(request.target), "one number per target"
        self._known[request] = (source, scores)

    def defer_completions(self, samples: Iterable[Sample], compute: Callable[[], None]) -> None:
        """``compute`` may add the policy's log-probs of these completions; called on request."""
        self._deferred = {ScoreRequest.of(s.prompt_ids, s.completion_ids) for s in samples}
        self._compute_deferred = compute

    def answer(
        self, requests: Iterable[ScoreRequest], score: Score
    ) -> Mapping[ScoreRequest, Scores]:
        """Scores of all requests; ``score`` is called once, with the distinct unknown requests."""
        wanted = list(dict.fromkeys(requests))
        if not self._deferred.isdisjoint(wanted):
            self._deferred = set()
            self._compute_deferred()
        unknown = [request for request in wanted if request not in self._known]
        answers = dict(zip(unknown, score(unknown) if unknown else (), strict=True))
        self.sources["pass"] += len(unknown)
        for request in wanted:
            if request in self._known:
                source, answers[request] = self._known[request]
                self.sources[source] += 1
        return answers

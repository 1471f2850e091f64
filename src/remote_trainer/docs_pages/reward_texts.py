"""The hand-written parts of docs/rewards.md."""

GENERAL_TEXT = """# Rewards

Generated from the code by `make docs`. `remote-trainer rewards` prints the same catalogue, and
`remote-trainer rewards NAME` prints one reward.

A reward is one number for one completion of one prompt; higher is better. Log-probabilities of
token ids are natural logarithms (nats) at temperature 1.

## Common rules

- **Ids.** The sampled ids of a completion are scored; they are never tokenised again. A completion
  given as text (`remote-trainer score`) is tokenised once.
- **Empty** means: no ids, or only white space, apart from end-of-sequence. It gets the reward's
  minimum.
- **Truncated** means: the ids reached the limit (`training.max_completion_length`) and do not end
  in end-of-sequence. It gets the minimum, except with `truncated: score` of `inverse_loss`. A
  completion given as text is never truncated and gets no end-of-sequence.
- `random` and `function` follow these two rules only if their `gate` contains them.
- **Cannot be judged.** A reward that needs a reference answer gives None for a row whose answer is
  missing, blank or not text, whatever the completion. The row is left out and counted. It never
  becomes 0.
- **Words** are separated by spaces, without the punctuation around them, after NFKC and in lower
  case. Chinese, Japanese, Thai, Khmer, Lao and Burmese have no spaces between words: there each
  character with its marks is a word, and so is a run of Katakana and anything else between such
  characters (是42。 is 是 and 42). Accuracy, the guard's probe and `training.keep: best` count
  words in the same way: an answer is right if the completion contains it as whole words. Korean has
  spaces, so a particle belongs to its word: 서울입니다 is not 서울.
- **Not finite.** A NaN or infinite value stops the run. The message names the reward, the row, the
  prompt and the completion, and for your own function its file and line.
- **`scored_by`.** `policy` is the current model, `reference` the same model with its adapter
  disabled. A model without an adapter is scored by itself, with one warning.

## Thinking blocks

For completions with a block between `<think>` and `</think>`, or `[THINK]` and `[/THINK]`:

- `token_f1`, `chrf`, `exact_match`, `majority_vote` and `repetition` read only the text after the
  block; `length_limit` and the coverage of `supervised` count only the ids after it. If the block
  is never closed, that text is empty.
- `supervised` and `answer_likelihood` put connector and reference answer after the block. A block
  that the prompt or completion leaves open is closed first.
- `inverse_loss` and `self_certainty` use all ids. `regex`, `function` and `gate` use the whole
  text.

If the tokenizer has no token for each tag, the block is found in the text. Then only the rewards
that read text, named first, leave it out.

## Final answers

A completion can mark its final answer: with a match of `data.answer_pattern` (its group, the last
match), with the last `\\boxed{...}`, or with `####` in the last line, in this order.
Then `exact_match` and `majority_vote` (without `extract`) compare only that; `token_f1` and `chrf`
do so for a match of `data.answer_pattern`. `exact_match` compares numbers by their value: "1,234"
is 1234. [data.md](data.md#final-answers) describes how evaluation judges answers.

## Options of every reward

COMMON_OPTIONS

`type` may be omitted if `function` is set.

**gate.** A completion that fails one of the conditions gets the reward's minimum and is not
measured:

| condition | fails for |
| --- | --- |
| `ended` | truncated completions |
| `not_empty` | empty completions |
| `not_looping` | texts that end in a repeated phrase |

`gate: true` means all three, `false` none; a single name needs no list. `not_looping` is the
default, but `random` and `function` have no gate by default. Empty completions always get the
minimum, and truncated ones nearly always, so `ended` and `not_empty` matter only for
`random`, `function` and `inverse_loss` with `truncated: score`. `function` needs `range` to have a
gate, and `formula: original` ignores it.

`remote_trainer.text_statistics.endless` defines a loop: the same ten words in a row (in scripts
without spaces 40 characters) occur ten times, or the text ends in a phrase that is repeated at
least four times, over at least 40 characters and at least half of the text. `loop_share` in
metrics.jsonl uses a wider rule, which also counts text that compresses well.

## Several rewards

A list is summed by `weight`. Each part is logged under its type; a second one of the same type is
logged as `<type>_2`. If one part cannot judge a row, the sum is None. If one part marks a
completion as invalid, the whole completion is invalid. Parts have different units (see their
ranges), so choose weights that bring them to a similar size.

```yaml
reward:
  - {type: supervised, gate: true}
  - {type: length_limit, max_tokens: 64, weight: 0.2}
  - {type: inverse_loss, scored_by: reference, weight: 0.05, gate: [not_looping, not_empty]}
```

## How training uses rewards

An **invalid** completion is one that was not measured: empty, truncated or rejected by a gate. The
others with a reward are measured. A group is all completions of one prompt.

- **Advantages.** An invalid completion keeps its reward in every report. For the advantages it
  counts like the worst measured completion of its group: its own minimum may be so far away that
  all differences between the others would vanish, and a lower value would mainly teach the model
  to end early ([learning.md](learning.md)). With fewer than two measured completions in the group,
  the rewards are used unchanged.
- **Spread** is the standard deviation of the measured rewards of a group (of the weighted sum).
  With fewer than two measured completions, the invalid ones count, too.
- **Filter.** A group trains only if its spread is above `training.group_filter.min_std` (default
  0.001). This is an absolute number in the reward's own units, so a small `weight` on the only
  reward may put groups below it. With `average_share` above 0 the spread must also be above this
  share of its running average, from the sixth update on. RLPR (arXiv 2506.18254) uses 0.5; the
  default is 0.
- **Without signal.** Filtered groups and completions that cannot be judged are excluded from the
  loss, the KL term and the divisor of the loss. If nothing is left in an update, it changes neither
  the weights nor the optimizer's moments; it still counts as an update. After three such updates
  in a row the log says so, once.

metrics.jsonl has these keys, per update or as the mean of `training.logging_steps` updates:

METRICS_OF_SIGNAL

**Reused log-probabilities.** Sampling computes the log-probabilities of a completion under the
policy, and the KL term (`training.beta` above 0) those under the reference. `inverse_loss` needs
exactly these. `scoring.reuse` controls whether they are reused:

- `auto`: those of sampling, if it uses the same weights in the same dtype as scoring; those of the
  KL term, if `generation.temperature` is 1; otherwise, under the policy, those of the next update,
  whose forward pass then runs before the rewards (one micro-step per update, temperature 1, no
  dropout, one process);
- `always`: the same, and those of sampling in any case;
- `never`: each score takes a forward pass.

`generation.dtype: auto` samples in bfloat16 if the processor computes in it; `sampler_gap` in
metrics.jsonl is the mean distance in nats between the log-probabilities of the sampled ids at
sampling and those of the trained weights.

If a field of `training.trl` changes how completions are sampled, TRL samples and keeps no
log-probabilities. With `mask_truncated_completions`, those of the KL term are not reused.

**Self-test.** At the start of training, at most 16 training rows with an answer are scored twice:
with their own answer as the completion, and with the answer of another row. One line says in how
many rows the right answer scores higher, with a warning if it is half of them or fewer;
`reward_self_test` in data_report.json records it. There is no test if no reward needs an answer,
and the result does not stop the run.

## formula: original

For comparison, `inverse_loss` and `supervised` still offer the formula of their first publication.
Its errors: a negative loss times a coverage below 1 *rewards* missing text, so the empty answer
wins; token counts are off by one on tokenizers that add BOS; text is tokenised again; the
supervised score ignores the prompt. The program warns when it is used.

## Adding a reward

In this project: one file in `src/remote_trainer/rewards/formulas/` with a subclass of
`RewardConfig`, one line in `rewards/registry.py`, one test. The fields of the class are the
options, `plan` is the formula, and the docstring becomes a section of this page (`make docs`).

Without changing the project: `function` names a reward function in the form that TRL's GRPOTrainer
takes. It is called with `prompts`, `completions`, `completion_ids` and the keys of the data rows,
each a list, and returns one number or None per completion. `check`, `score` and `train` import its
module.

```yaml
reward:
  function: my_rewards:short_and_polite     # my_rewards.py in the working directory
  range: [0, 1]
  gate: [ended, not_looping]
```
"""

CATALOGUE_TEXT = """## Catalogue

Needs are stated for the default options; `length_limit` with `max_tokens` needs no answer. The
whole group means: all completions of a prompt in one call.
"""

PROPERTIES_TEXT = """## Properties

Each reward of the catalogue guarantees these properties with its default `gate` (and
`truncated: floor`), with the listed exceptions. Tests check both on small purpose-built models.
Properties about right answers apply to rewards that need a reference answer. Properties about the
model's answers (P8, P10 to P13) apply to rewards that use the model.

These guarantee none of them: EVERYTHING.
"""

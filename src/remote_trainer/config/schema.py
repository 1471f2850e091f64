"""Every setting: name, default, range and meaning. Defaults are defined only here."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    field_validator,
    model_validator,
)

from remote_trainer.config.distributed import DistributedSettings
from remote_trainer.config.evaluation import EvaluationSettings
from remote_trainer.config.guard import GuardSettings
from remote_trainer.config.lora import LoraSettings
from remote_trainer.config.section import Count, PathText, PositiveFloat, PositiveInt, Section
from remote_trainer.config.tracking import TrackingSettings
from remote_trainer.export_formats import names_for_config
from remote_trainer.llama_cpp.convert import GGUF_TYPES
from remote_trainer.rewards import REWARDS, RewardConfig
from remote_trainer.rewards.base import implied_type
from remote_trainer.rewards.formulas.regex import compiles

# Arguments of transformers' apply_chat_template that never reach a template.
OPTIONS_OF_RENDERING = frozenset(
    {"conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict"}
    | {"return_assistant_tokens_mask", "tokenizer_kwargs"}
)


class ModelSettings(Section):
    name: PathText = "builtin/smollm2-135m-instruct"
    """A built-in model, a local folder or a Hugging Face id."""
    adapter: PathText | None = None
    """Train this LoRA adapter further: a PEFT folder, a finished run, or a checkpoint of a run."""
    backend: Literal["auto", "transformers", "unsloth"] = "auto"
    """Training engine; auto: Unsloth with vLLM if CUDA and the extra `unsloth` are available."""
    max_seq_length: PositiveInt = 2048
    """Maximum number of tokens of prompt plus completion."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the base weights; auto: bfloat16 on CUDA, float32 on CPU."""
    load_in_4bit: Literal["auto", True, False] = "auto"
    """Train on a 4-bit base model (QLoRA, arXiv 2305.14314); auto: with CUDA only."""
    trust_remote_code: StrictBool = False
    """Run Python code from the model repository; needs a pinned `revision` for hub models."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        local = self.name.startswith((".", "/"))
        pinned = local or re.fullmatch(r"[0-9a-f]{40}", self.revision or "")
        if self.trust_remote_code and not pinned:
            raise ValueError(
                "trust_remote_code: true runs code of the model's authors; pin the version that "
                "you reviewed: write revision: <40-digit commit>"
            )
        return self


class DataSettings(Section):
    train: PathText
    """A JSONL, CSV or parquet file, a folder of such files, or a dataset of the Hugging Face hub:
    owner/name, owner/name:split or owner/name:config:split (docs/data.md)."""
    eval: PathText | None = "auto"
    """Evaluation data, as in train; auto: hold out a seeded 10 % of train (20 to 200 rows, whole
    prompts); none or null: no evaluation data."""
    prompt_field: str = "prompt"
    """Row key of the prompt: text or a list of messages; a path such as turns.0.text, or keys to
    join (instruction+input); guessed if it is not written and no row has the key prompt."""
    system_prompt: str | None = None
    """System message for prompts that have none."""
    chat_template_kwargs: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    """Extra arguments for the model's chat template."""
    overlong_prompts: Literal["drop", "refuse"] = "drop"
    """What to do with prompts over training.max_prompt_length; they are never truncated."""
    answer_pattern: str | None = None
    """Regular expression with one group: the final answer in longer reference answers and in
    completions, at its last match; null: references are used as they stand."""

    @field_validator("answer_pattern")
    @classmethod
    def _has_one_group(cls, value: str | None) -> str | None:
        groups = 1 if value is None else re.compile(compiles(value)).groups
        if groups != 1:
            raise ValueError(
                f"{value!r} has {groups} groups; write exactly one, around the answer, for "
                "instance '#### (.+)'; others as (?:...)"
            )
        return value

    @field_validator("eval")
    @classmethod
    def _null_is_none(cls, value: str | None) -> str | None:
        return "none" if value is None else value

    @model_validator(mode="after")
    def _template_gets_its_own_options(self) -> Self:
        ours = sorted(OPTIONS_OF_RENDERING & set(self.chat_template_kwargs))
        if ours:
            raise ValueError(
                f"chat_template_kwargs: {ours[0]} is not a template option; remote_trainer sets it "
                "when it renders prompts. Remove it"
            )
        return self


class ScoringSettings(Section):
    max_tokens_per_batch: PositiveInt = 8192
    """Maximum padded tokens per forward pass of rewards and evaluation."""
    reuse: Literal["auto", "always", "never"] = "auto"
    """Reuse log-probs that sampling and the KL term have already computed; always: also those of
    sampling in another dtype."""


class GroupFilterSettings(Section):
    min_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0e-3
    """Groups with a smaller standard deviation of rewards are dropped; 0 drops only groups of
    identical rewards."""
    average_share: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Also drop groups with a standard deviation below this share of its running average; RLPR:
    0.5."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the running average; higher is slower."""


class TrainingSettings(Section):
    learning_rate: PositiveFloat = 4.0e-4
    """Peak learning rate of AdamW."""
    num_generations: Annotated[int, Field(ge=2, strict=True)] = 8
    """Completions per prompt: the group of GRPO (arXiv 2402.03300)."""
    per_device_train_batch_size: PositiveInt = 1
    """Prompts (not completions) per device and micro-step."""
    gradient_accumulation_steps: PositiveInt = 2
    """Micro-steps per update."""
    max_prompt_length: PositiveInt = 512
    """Maximum prompt tokens, including the chat template."""
    max_completion_length: PositiveInt = 64
    """Maximum completion tokens."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight of the KL term to the model without adapter; 0 disables it; null: 0.3 if every reward
    measures only how sure the model is, which needs a strong term, else 0.04."""
    max_steps: PositiveInt | None = 90
    """Number of updates; use num_train_epochs instead to set epochs."""
    num_train_epochs: PositiveFloat | None = None
    """Number of epochs."""
    num_iterations: PositiveInt = 1
    """Updates per batch of completions."""
    warmup_steps: Count = 0
    """Warm-up updates of the learning rate, with every lr_scheduler_type."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """Learning rate schedule."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Maximum gradient norm (clipping)."""
    disable_dropout: StrictBool = True
    """Disable the base model's own dropout; lora.dropout applies either way."""
    deterministic: StrictBool = False
    """Use only torch kernels that give the same bits every time, so that a run on a GPU resumes
    exactly; slower. transformers only, without vLLM."""
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "dapo"
    """How token losses are averaged; TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """Standard deviation that advantages are divided by."""
    group_filter: GroupFilterSettings = GroupFilterSettings()
    """When a group has too little signal to train on."""
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    """Recompute activations to save memory; auto: on with CUDA, off on CPU."""
    logging_steps: PositiveInt = 1
    """Updates per line of metrics.jsonl."""
    save_steps: PositiveInt = 20
    """Updates between checkpoints."""
    keep: Literal["last", "best"] = "last"
    """Which adapter is the result: the last one, or the one with the most correct answers in a
    probe of held-out rows."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints to keep."""
    seed: Count = 0
    """Seed of adapter, data order and sampling."""
    trl: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    """Other fields of TRL's GRPOConfig."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("num_train_epochs") is None:
            return given
        if given.get("max_steps") is not None:
            raise ValueError("max_steps and num_train_epochs both set a length; write only one")
        return {**given, "max_steps": None}

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.max_steps is None and self.num_train_epochs is None:
            raise ValueError("max_steps is null and num_train_epochs is not set; write one of them")
        return self

    @model_validator(mode="after")
    def _checkpoints_fall_between_generations(self) -> Self:
        if self.save_steps % self.num_iterations:
            raise ValueError(
                f"save_steps={self.save_steps} is not a multiple of "
                f"num_iterations={self.num_iterations}; write a multiple, because updates that "
                "share completions cannot be resumed exactly in between"
            )
        return self

    @property
    def prompts_per_update(self) -> int:
        """Prompts of one update on one device."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def completions_per_update(self) -> int:
        """Completions of one update on one device."""
        return self.prompts_per_update * self.num_generations


class GenerationSettings(Section):
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """Engine that samples training completions; auto: vLLM with Unsloth, otherwise transformers."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; 1 keeps every token."""
    top_k: Count = 0
    """Sample from the k most likely tokens; 0 keeps every token."""
    min_new_tokens: Count = 0
    """Minimum completion tokens."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type for sampling training completions; auto: bfloat16 if the processor supports it
    natively, otherwise the model's own."""


if TYPE_CHECKING:
    FormatName = str
    GgufType = str
else:
    FormatName = Literal[names_for_config()]
    GgufType = Literal[GGUF_TYPES]


class ExportSettings(Section):
    formats: Annotated[tuple[FormatName, ...], Field(min_length=1)] = ("lora",)
    """Formats to export at the end; the adapter is always written."""
    merge_base: Literal["dequantized", "original"] = "dequantized"
    """After training on a 4-bit base, merge into the dequantised weights (the model that was
    trained) or into the original weights."""
    gguf_type: GgufType = "q8_0"
    """Weight type of a GGUF."""


def _reward_type(value: Any) -> str:
    if isinstance(value, RewardConfig):
        return value.type
    kind = implied_type(value) if isinstance(value, dict) else value
    return kind if isinstance(kind, str) else repr(kind)


def _reward_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


if TYPE_CHECKING:
    RewardList = list[RewardConfig]
else:
    # One member per entry of the catalogue, so that each reward's own options are checked.
    AnyReward = Annotated[
        Union[tuple(Annotated[kind, Tag(name)] for name, kind in REWARDS.items())],  # noqa: UP007
        Discriminator(_reward_type),
    ]
    RewardList = Annotated[list[AnyReward], Field(min_length=1), BeforeValidator(_reward_list)]


class RunConfig(Section):
    """The whole config."""

    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    data: DataSettings | None = None
    reward: RewardList = Field(default_factory=lambda: [RewardConfig()])
    scoring: ScoringSettings = ScoringSettings()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    guard: GuardSettings = GuardSettings()
    export: ExportSettings = ExportSettings()
    tracking: TrackingSettings = TrackingSettings()
    distributed: DistributedSettings = DistributedSettings()
    output_dir: PathText = "runs/run"
    """The run folder."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        total = self.training.max_prompt_length + self.training.max_completion_length
        if total > self.model.max_seq_length:
            raise ValueError(
                f"training.max_prompt_length + training.max_completion_length = {total} tokens, "
                f"over model.max_seq_length={self.model.max_seq_length}; lower one or raise the "
                "other"
            )
        if self.generation.min_new_tokens > self.training.max_completion_length:
            raise ValueError(
                f"generation.min_new_tokens={self.generation.min_new_tokens} is over "
                f"training.max_completion_length={self.training.max_completion_length}; lower one "
                "or raise the other"
            )
        return self

    def with_data(self) -> DataSettings:
        """The data section of a config that has one."""
        assert self.data is not None, "check_config refuses a config without data.train"
        return self.data

    def answer_lengths(self) -> tuple[int | None, int]:
        """Most tokens of a completion in evaluation: (as set, the least if not set)."""
        trained = self.training.max_completion_length
        least = trained if self.evaluation.limit_from == "training" else 0
        return self.evaluation.max_completion_length, least

    @property
    def kl_weight(self) -> float:
        """training.beta as a number."""
        beta = self.training.beta
        if beta is not None:
            return beta
        return 0.3 if all(reward.only_certainty for reward in self.reward) else 0.04

    @property
    def vllm_mode(self) -> Literal["colocate", "server"]:
        """Where vLLM runs if it samples: in this process, or on an existing server."""
        return "server" if self.training.trl.get("vllm_mode") == "server" else "colocate"

    @property
    def answer_field(self) -> str:
        """Row key of the reference answer, from the first reward that needs one, or else from the
        first one."""
        return next((r for r in self.reward if r.needs_answer), self.reward[0]).answer_field

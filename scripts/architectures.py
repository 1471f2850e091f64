"""Trains a tiny random model of every architecture of docs/models.md and writes what came of it.

    python scripts/architectures.py [NAME ...] [--without-gguf] [--results FILE] [--write]

Each one goes through the functions that the commands call: three updates, log-probabilities held
against transformers' own forward pass, an interrupted run, a merge with its proof, a GGUF where
llama.cpp's converter knows the architecture. With --write the table in docs/models.md is replaced.
With --results FILE what came of each one is kept there, a line of JSON each, and those that stand
in the file are not tried again.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.errors import ExportError
from remote_trainer.pipeline.export import export_trained, why_failed
from remote_trainer.pipeline.train import run
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import Continuation, LoadSettings, Sampling, ScoreRequest
from remote_trainer.run_dir import RunDir, append_jsonl, read_jsonl

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- made by scripts/architectures.py -->", "<!-- end -->"
UPDATES, WINDOW = 3, 8
LIMIT_NATS = 1e-5
WIDTH = 64
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
COUNTRIES = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Norway": "Oslo"}

_GROUPED = {"num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 256}
_SIZES = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 2,
    "bos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.1,
}  # fmt: skip
_GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 128}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GROUPED),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3_moe": (
        "qwen3_moe",
        {**_GROUPED, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32},
    ),
    "mistral with window": ("mistral", {**_GROUPED, "sliding_window": WINDOW}),
    "mixtral": (
        "mixtral",
        {**_GROUPED, "num_local_experts": 4, "sliding_window": None},
    ),
    "gemma": ("gemma", {**_GROUPED, "head_dim": 16}),
    "gemma2": (
        "gemma2",
        {**_GROUPED, "head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 16},
    ),
    "gemma3": (
        "gemma3_text",
        {**_GROUPED, "head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 16},
    ),
    "phi3": ("phi3", {**_GROUPED, "resid_pdrop": 0.1}),
    "granite": (
        "granite",
        {**_GROUPED, "logits_scaling": 2.0, "embedding_multiplier": 2.0,
         "residual_multiplier": 0.5, "attention_multiplier": 0.25},
    ),
    "falcon": ("falcon", {"num_kv_heads": 1, "hidden_dropout": 0.1, "attention_dropout": 0.1}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, "hidden_dropout": 0.1}),
    "gpt2": ("gpt2", _GPT2),
    "gpt_neox": ("gpt_neox", {"intermediate_size": 96, "max_position_embeddings": 256}),
    "opt": (
        "opt",
        {"ffn_dim": 96, "max_position_embeddings": 128, "word_embed_proj_dim": WIDTH,
         "init_std": 0.1, "dropout": 0.1},
    ),
    "olmo2": ("olmo2", _GROUPED),
    "smollm3": ("smollm3", {**_GROUPED, "no_rope_layer_interval": 2}),
}  # fmt: skip
"""Name -> model_type and settings; the numbers are small, the parts are the architecture's own."""

# llama.cpp tells tokenizers by a list of hashes and some architectures by SentencePiece files, and
# a tokenizer that was made a moment ago is on no list.
CONVERTER = """import runpy, sys
sys.path.insert(0, {real!r})
from conversion.base import TextModel
from conversion import gemma, phi
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
for kind in (gemma.GemmaModel, gemma.Gemma2Model, phi.Phi3MiniModel):
    kind.set_vocab = TextModel._set_vocab_gpt2
runpy.run_path({script!r}, run_name="__main__")
"""


@dataclass
class Outcome:
    """What one architecture did."""

    name: str
    adapter: str = ""
    updates: int = 0
    gaps: dict[str, float] = field(default_factory=dict)
    """Largest difference to transformers' own forward pass, in nats, by what was compared."""
    greedy: bool = False
    resumes: bool = False
    merged: str = ""
    gguf: str = ""
    ways: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def faults(self) -> list[str]:
        """What is not as it must be."""
        wrong = {
            f"{self.updates} updates": self.updates != UPDATES,
            "greedy decoding is not transformers'": not self.greedy,
            "an interrupted run ends otherwise": not self.resumes,
            f"merged_16bit: {self.merged}": self.merged != "PASS",
            f"gguf: {self.gguf}": self.gguf not in ("PASS", "INCONCLUSIVE", "unknown", "left out"),
        }
        far = [
            f"{what}: {gap:.2g} nats" for what, gap in self.gaps.items() if not gap <= LIMIT_NATS
        ]
        return [text for text, bad in wrong.items() if bad] + far


def make(name: str, folder: Path) -> Path:
    """A saved tiny model with a tokenizer of its own."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind, settings = ARCHITECTURES[name]
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    # A few rows more than ids: what reads the tokenizer by its family may add tokens of that.
    config = CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer) + len(SPECIAL), **{**_SIZES, **settings}
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):  # zeros would hide a bias that is lost
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([line for row in _rows() for line in row.values()] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _rows() -> list[dict[str, str]]:
    return [
        {"prompt": f"{ask} the capital of {country}?", "answer": answer}
        for ask in ("What is", "Please name", "Which city is")
        for country, answer in COUNTRIES.items()
    ]


def look_at(name: str, folder: Path, with_gguf: bool = True) -> Outcome:
    """Everything about one architecture, in ``folder``."""
    begun = time.perf_counter()
    model = make(name, folder / "model")
    outcome = Outcome(name)
    config, text = _config(model, folder / "run")
    stages: list[str] = []
    run(config, text, watch=ProgressCallbacks(stage=stages.append))
    finished = RunDir(folder / "run")
    outcome.adapter = next((s for s in stages if s.startswith("adapter on")), "")
    outcome.updates = len(read_jsonl(finished.metrics))
    environment = json.loads(finished.environment.read_text(encoding="utf-8"))
    outcome.ways = environment["engine"]["ways"]
    outcome.resumes = _adapter(finished) == _adapter(_interrupted(model, folder / "again"))
    _compare(outcome, model, finished)
    outcome.merged = _export(finished, "merged_16bit", None)
    outcome.gguf = _export(finished, "gguf", "f32") if with_gguf else "left out"
    outcome.seconds = time.perf_counter() - begun
    return outcome


def _config(model: Path, output: Path) -> tuple[RunConfig, str]:
    data = output.parent / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in _rows()), encoding="utf-8")
    text = json.dumps(
        {
            "model": {"name": str(model)},
            "lora": {"r": 4, "alpha": 8},
            "data": {"train": str(data), "eval": "none"},
            "reward": {"type": "inverse_loss", "truncated": "score"},
            "training": {
                "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
                "max_prompt_length": 64, "max_completion_length": 6, "max_steps": UPDATES,
                "save_steps": 1, "group_filter": {"min_std": 0},
            },
            "guard": {"action": "off"},
            "output_dir": str(output),
        }
    )  # fmt: skip
    return parse_config(text, "config"), text


class _Stopped(Exception):
    pass


def _interrupted(model: Path, output: Path) -> RunDir:
    """A run that is killed after its second update, and goes on."""
    config, text = _config(model, output)

    def stop(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 2:
            raise _Stopped

    def enough(stage: str) -> None:
        if stage.startswith("proving"):  # the adapter is written by then
            raise _Stopped

    for watch in (ProgressCallbacks(line=stop), ProgressCallbacks(stage=enough)):
        with contextlib.suppress(_Stopped):
            run(config, text, watch=watch)
    return RunDir(output)


def _adapter(run_dir: RunDir) -> bytes:
    return (run_dir.adapter / "adapter_model.safetensors").read_bytes()


def _compare(outcome: Outcome, model: Path, finished: RunDir) -> None:
    """The engine's numbers and its greedy completions against transformers' own."""
    import torch

    from remote_trainer.engines.transformers_backend import TransformersBackend

    backend = TransformersBackend.load(model, LoadSettings())
    backend.load_adapter(finished.adapter)
    prompt_tokenizer = backend.prompt_tokenizer
    prompts = [
        prompt_tokenizer.encode_prompt([{"role": "user", "content": row["prompt"]}])
        for row in _rows()
    ]
    sampled = backend.generate(prompts[:4] * 3, Sampling(8, seed=1))
    rows = [Continuation(p, g.ids) for p, g in zip(prompts[:4] * 3, sampled, strict=True)]
    plain = [_plainly(backend.model, row) for row in rows]
    scored = backend.score([ScoreRequest.of(row.context, row.ids) for row in rows])
    width = max(len(row.ids) for row in rows)
    trained, _ = backend.logprobs(backend.model.train(), rows, width, 1.0)
    backend.model.eval()
    found = {
        "scoring": [torch.tensor(numbers) for numbers in scored],
        "training": [t[: len(r.ids)].detach() for t, r in zip(trained, rows, strict=True)],
        "sampling": [torch.tensor(generation.logprobs) for generation in sampled],
    }
    outcome.gaps = {
        what: max(float((n - p).abs().max()) for n, p in zip(numbers, plain, strict=True))
        for what, numbers in found.items()
    }
    outcome.greedy = all(
        list(said.ids) == _greedy(backend.model, prompt, len(said.ids), prompt_tokenizer)
        for said, prompt in zip(
            backend.generate(prompts[:4], Sampling(8, temperature=0)), prompts[:4], strict=True
        )
    )


def _plainly(model: Any, row: Continuation) -> Any:
    """Log-probs of one row by itself, from the logits of the stock forward pass."""
    import torch

    ids = torch.tensor([row.context + row.ids])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(row.context) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, ids[0, len(row.context) :, None])[:, 0]


def _greedy(model: Any, prompt: tuple[int, ...], length: int, prompt_tokenizer: Any) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    said = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=list(prompt_tokenizer.eos_ids),
        pad_token_id=prompt_tokenizer.pad_id,
    )
    found: list[int] = said[0, len(prompt) :].tolist()
    return found


def _export(finished: RunDir, form: str, gguf_type: str | None) -> str:
    """The verdict, or why there is none."""
    try:
        _, proof = export_trained(finished.root, form, gguf_type)
    except ExportError as error:
        return "unknown" if "cannot convert this model" in str(error) else str(error)
    return str(proof["verdict"]) if proof["verdict"] != "FAIL" else why_failed(proof)


def toy_converter(folder: Path) -> None:
    """llama.cpp's converter, told what kind of tokenizer ours is."""
    from remote_trainer.llama_cpp import convert as gguf

    real = gguf._scripts()
    assert real is not None, "install remote-trainer[gguf], or say --without-gguf"
    script = "convert_hf_to_gguf.py"
    (folder / script).write_text(
        CONVERTER.format(real=str(real), script=str(real / script)), encoding="utf-8"
    )
    os.environ[gguf.LLAMA_CPP_DIR] = str(folder)


COLUMNS: dict[str, Callable[[Outcome], str]] = {
    "architecture": lambda o: o.name,
    "adapter (`auto`)": lambda o: _layers_told(o.adapter),
    "updates": lambda o: str(o.updates),
    "log-probs, largest gap": lambda o: f"{max(o.gaps.values(), default=float('nan')):.0e}",
    "resume": lambda o: "bit-equal" if o.resumes else "**differs**",
    "merged_16bit": lambda o: o.merged,
    "GGUF": lambda o: {"unknown": "not known to llama.cpp"}.get(o.gguf, o.gguf),
    "ordered weights": lambda o: o.ways.get("ordered weights", "").removesuffix(" linear layers"),
    "prompt shared in training": lambda o: _way(o, "packed rows, training"),
    "sampling": lambda o: _sampling(o),
}


def _layers_told(sentence: str) -> str:
    names = sentence.partition(": ")[2].partition(";")[0]
    return names.partition(" (")[0] if names.endswith("each)") else names


def _way(outcome: Outcome, key: str) -> str:
    told = outcome.ways.get(key, "TRL's own pass, for the loss of the router")
    return "yes" if told == "on" else f"no: {told}"


def _sampling(outcome: Outcome) -> str:
    told = {way.partition(";")[0] for k, way in outcome.ways.items() if k.startswith("sampling")}
    return ", ".join(sorted(told))


def table(outcomes: list[Outcome]) -> str:
    """Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[column(outcome) for column in COLUMNS.values()] for outcome in outcomes]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(text: str) -> None:
    """Put the table between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


def _read(results: Path | None) -> list[Outcome]:
    return [] if results is None else [Outcome(**line) for line in read_jsonl(results)]


def main() -> int:
    """0 where every architecture is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--without-gguf", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.ERROR)
    known = {outcome.name: outcome for outcome in _read(asked.results)}
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["REMOTE_TRAINER_CACHE"] = f"{scratch}/cache"
        if not asked.without_gguf:
            toy_converter(Path(scratch))
        for name in asked.names or ARCHITECTURES:
            if name in known:
                continue
            outcome = known[name] = look_at(
                name, Path(scratch) / name.replace(" ", "-"), not asked.without_gguf
            )
            if asked.results:
                append_jsonl(asked.results, asdict(outcome))
            wrong = outcome.faults()
            faults += bool(wrong)
            told = "; ".join(wrong) or "as it must be"
            print(f"{name}: {told} ({outcome.seconds:.0f} s) {outcome.ways}", flush=True)
    outcomes = [known[name] for name in ARCHITECTURES if name in known]
    print(table(outcomes))
    if asked.write:
        write(table(outcomes))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Tiny random models with real tokenizers: one that adds BOS, one that does not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SENTENCES = [
    "What is the capital of France? The capital of France is Paris.",
    "What is 2 + 3? Answer: 5. Name a fruit. An apple is a fruit.",
    "The answer is 42. Answer: Paris. Madrid is the capital of Spain.",
] * 4
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        yield


def tokenizer_core(adds_bos: bool) -> Tokenizer:
    """A byte-level BPE with some merges, so that border and canonicity effects are real."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    return core


def make_tokenizer(adds_bos: bool) -> Any:
    """A Hugging Face tokenizer around `tokenizer_core`."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_core(adds_bos),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(family: str, tokenizer: Any) -> Any:
    """A random model of the family, seeded, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,  # the usual 0.02 makes every token equally likely
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()


@pytest.fixture(scope="session", params=["llama-bos", "qwen-no-bos"])
def tiny_folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model: Llama with a BOS-adding tokenizer, Qwen2 with one that adds none."""
    family, _, bos = request.param.partition("-")
    folder: Path = tmp_path_factory.mktemp(request.param)
    tokenizer = make_tokenizer(adds_bos=bos == "bos")
    make_model(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama alone, where one family is enough."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = make_tokenizer(adds_bos=True)
    make_model("llama", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def backend(tiny_folder: Path) -> Any:
    """A fresh backend for each family."""
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.records import LoadSettings

    return TransformersBackend.load(tiny_folder, LoadSettings())


@pytest.fixture
def llama(llama_folder: Path) -> Any:
    """A fresh backend with the tiny Llama."""
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.records import LoadSettings

    return TransformersBackend.load(llama_folder, LoadSettings())


@pytest.fixture(scope="session")
def smollm() -> Any:
    """The built-in model without an adapter, loaded once; for slow tests."""
    from remote_trainer.engine import resolve_model
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.models.builtin_model import BUILTIN_NAME
    from remote_trainer.records import LoadSettings

    return TransformersBackend.load(resolve_model(BUILTIN_NAME), LoadSettings())


@pytest.fixture(scope="session")
def toy_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's converters, told which known tokenizer ours splits text like.

    They ask a list of hashes, on which no tokenizer of a test can be; nothing else is changed.
    """
    from remote_trainer.llama_cpp import convert as gguf

    folder, real = tmp_path_factory.mktemp("llama.cpp"), gguf._scripts()
    for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        (folder / name).write_text(
            f"import runpy, sys\nsys.path.insert(0, {str(real)!r})\n"
            "from conversion.base import TextModel\n"
            "TextModel.get_vocab_base_pre = lambda self, tokenizer: 'gpt-2'\n"
            f"runpy.run_path({str(real)!r} + '/{name}', run_name='__main__')\n"
        )
    return folder


@pytest.fixture
def toy_gguf(toy_scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GGUF files of tiny models can be written."""
    monkeypatch.setenv("LLAMA_CPP_DIR", str(toy_scripts))
    return toy_scripts


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file into the test's folder and return its path."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama wide enough for bitsandbytes' 4 bits."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    tokenizer = make_tokenizer(adds_bos=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

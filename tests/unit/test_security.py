"""What hostile models, adapters and checkpoints cannot do, and where secrets do not appear."""

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_pipeline import cache, data_files, text_for

from remote_trainer.config import parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.train import run
from remote_trainer.records import LoadSettings
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import TemplateRefusal

__all__ = ["cache", "data_files"]  # fixtures

PICKLES = (
    *("pytorch_model.bin", "model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"),
    *("scheduler.pt", "rng_state.pth", "consolidated.00.pth", "model.pkl"),
)
SECRETS = {
    "HF_TOKEN": "hf_" + "T" * 34,
    "WANDB_API_KEY": "w" * 40,
    "AWS_SECRET_ACCESS_KEY": "aws/" + "S" * 36,
    "RAY_AUTH_TOKEN": "r" * 64,
    "MY_OWN_SECRET": "canary-27182818",
}


class Marks:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def plant(folder: Path, mark: Path) -> None:
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Marks(mark)))


def test_the_pickles_of_these_tests_run_code(tmp_path: Path) -> None:
    plant(tmp_path, tmp_path / "mark")
    pickle.loads((tmp_path / PICKLES[0]).read_bytes())
    assert (tmp_path / "mark").is_dir()


def test_planted_pickles_are_never_opened(
    llama_folder: Path, data_files: Any, cache: Path, tmp_path: Path
) -> None:
    """Beside the weights of a model, in a checkpoint that is resumed, beside an adapter."""
    mark = tmp_path / "mark"
    model = Path(shutil.copytree(llama_folder, tmp_path / "model"))
    plant(model, mark)
    text = text_for(model, data_files, tmp_path / "run")
    config = parse_config(text, "c")
    run(config, text)
    shutil.rmtree(tmp_path / "run" / "adapter")
    (tmp_path / "run" / "eval.json").unlink()
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    plant(newest, mark)
    run(config, text)
    plant(tmp_path / "run" / "adapter", mark)
    backend = TransformersBackend.load(model, LoadSettings())
    backend.load_adapter(tmp_path / "run" / "adapter")
    assert not mark.exists()


def test_weights_that_are_only_pickles_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama_folder, tmp_path / "model"))
    (model / "model.safetensors").unlink()
    plant(model, tmp_path / "mark")
    with pytest.raises(OSError, match="safetensors"):
        TransformersBackend.load(model, LoadSettings())
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["llama", "unknown"])
def test_code_of_a_model_is_not_run(kind: str, llama_folder: Path, tmp_path: Path) -> None:
    model, mark = Path(shutil.copytree(llama_folder, tmp_path / "model")), tmp_path / "mark"
    code = f"import os\nos.mkdir({str(mark)!r})\nclass C: pass\nclass M: pass\nclass T: pass\n"
    (model / "own.py").write_text(code)
    own = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoTokenizer": ["own.T", None]}
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**settings, "auto_map": own}))
    if kind == "unknown":
        settings = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**settings, "model_type": "unknown"}))
        with pytest.raises(UserInputError, match="needs code of its authors, which is not run"):
            TransformersBackend.load(model, LoadSettings())
    else:
        TransformersBackend.load(model, LoadSettings())
    assert not mark.exists()


@pytest.mark.parametrize(
    "payload",
    [
        "{{ lipsum.__globals__['os'].mkdir(MARK) }}",
        "{{ cycler.__init__.__globals__.os.mkdir(MARK) }}",
        "{{ joiner.__init__.__globals__['os'].mkdir(MARK) }}",
        "{{ namespace.__init__.__globals__['os'].mkdir(MARK) }}",
        "{{ self.__init__.__globals__['__builtins__']['open'](MARK, 'w') }}",
        "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.mkdir(MARK) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__cla' ~ 'ss__']['__mro__'] }}",
        "{{ raise_exception.__globals__['os'].mkdir(MARK) }}",
        "{{ strftime_now.__globals__['json'].codecs.open(MARK, 'w') }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ ('{0.__class__}' ~ '').format_map({'0': messages}) }}",
        "{{ messages.append(messages[0]) }}",
        "{{ messages[0].update({'content': 'other'}) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.mkdir(MARK) }}",
    ],
)
def test_a_chat_template_cannot_leave_its_sandbox(
    payload: str, llama_folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    shutil.copy(llama_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "chat_template.jinja").write_text(payload.replace("MARK", repr(str(mark))))
    prompt_tokenizer = light_codec(tmp_path, {})
    assert prompt_tokenizer is not None
    try:
        text = prompt_tokenizer.prompt_text([{"role": "user", "content": "a"}])
    except TemplateRefusal as refusal:
        text = str(refusal)
        assert "the model's chat template" in text
    assert not mark.exists()
    assert "<class" not in text


def test_the_attr_filter_finds_no_class(llama_folder: Path, tmp_path: Path) -> None:
    """The sandbox gives it an undefined value, which is written as nothing."""
    shutil.copy(llama_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    payload = "seen: {{ '' | attr('__class__') }}."
    (tmp_path / "chat_template.jinja").write_text(payload)
    prompt_tokenizer = light_codec(tmp_path, {})
    assert prompt_tokenizer is not None
    assert prompt_tokenizer.prompt_text([{"role": "user", "content": "a"}]) == "seen: ."


def test_no_secret_is_in_a_file_of_a_run_or_in_the_log(
    llama_folder: Path,
    data_files: Any,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = text_for(llama_folder, data_files, tmp_path / "run")
    with caplog.at_level(logging.DEBUG):
        run(parse_config(text, "c"), text)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert {"report.html", "environment.json", "config.resolved.yaml", "README.md"} <= {
        file.name for file in files
    }
    printed = capsys.readouterr()
    seen = [(file.name, file.read_bytes()) for file in files]
    seen += [("log", caplog.text.encode()), ("output", (printed.out + printed.err).encode())]
    found = [
        (where, name)
        for where, content in seen
        for name, value in SECRETS.items()
        if value.encode() in content
    ]
    assert found == []

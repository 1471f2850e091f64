"""llama.cpp's server: its numbers are those of the model in the file."""

from pathlib import Path
from typing import Any

import pytest
from test_trainer import rows_for

from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.llama_cpp.server import WHOLE_VOCABULARY, LlamaServer
from remote_trainer.records import ScoreRequest

LIKELY = 5


@pytest.fixture
def server(llama_folder: Path, toy_gguf: Path, tmp_path: Path) -> LlamaServer:
    gguf.convert(llama_folder, tmp_path / "m.gguf", "f32")
    return LlamaServer(tmp_path / "m.gguf", 128)


def test_logprobs_are_those_of_the_model_whatever_comes_next(
    server: LlamaServer, llama: Any
) -> None:
    """Tokens that are part of a character and the end of a text are numbers as all others."""
    (row,) = rows_for(llama, 1)
    ids, seen = list(row.prompt_ids), 0
    lonely_bytes = [i for i in range(300) if "\ufffd" in llama.prompt_tokenizer.decode([i])]
    assert len(lonely_bytes) > 100
    for following in (lonely_bytes[3], 20, llama.prompt_tokenizer.eos_ids[0], lonely_bytes[77], 30):
        every = server.next_token(ids, WHOLE_VOCABULARY)
        wanted = [ScoreRequest.of(tuple(ids), (token,)) for token in range(len(every))]
        scores = [score[0] for score in llama.score(wanted)]
        assert [every[token] for token in range(len(every))] == pytest.approx(
            scores, abs=0.02
        )  # its cache is float16
        likeliest = sorted(every, key=lambda token: -every[token])
        assert list(server.next_token(ids, LIKELY)) == likeliest[:LIKELY]
        seen += likeliest[0] in lonely_bytes
        ids.append(following)
    assert seen > 0  # the case that the server keeps back


def test_a_proxy_of_the_environment_is_not_asked(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert server.post("/tokenize", {"content": "a"})["tokens"]


def test_a_server_that_cannot_be_reached_is_explained() -> None:
    class Nowhere:
        listening_address = "http://127.0.0.1:9"  # the discard port, where nothing listens

    server = object.__new__(LlamaServer)
    server._server = Nowhere()
    with pytest.raises(ConnectionError, match="needs the loopback interface"):
        server.post("/tokenize", {"content": "a"})

"""The tokenizer of an exported model, in every form that a reader may ask for."""

import shutil
from pathlib import Path

SENTENCEPIECE = "tokenizer.model"


def write_tokenizer(source: Path, base: Path, target: Path) -> None:
    """Write the tokenizer and chat template of ``source`` into ``target``.

    transformers reads a SentencePiece model and writes tokenizer.json alone, and llama.cpp converts
    some architectures (Gemma, Phi-3) by nothing but that model, so the base's goes along.
    """
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(target)
    own = base / SENTENCEPIECE
    if own.exists() and not (target / SENTENCEPIECE).exists():
        shutil.copy(own, target / SENTENCEPIECE)

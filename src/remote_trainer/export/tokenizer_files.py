"""The tokenizer of an exported model, in every format that programs may need."""

import shutil
from pathlib import Path

SENTENCEPIECE = "tokenizer.model"


def write_tokenizer(source: Path, base: Path, target: Path) -> None:
    """Write the tokenizer and chat template of ``source`` into ``target``.

    transformers reads a SentencePiece model but writes only tokenizer.json. For some architectures
    (Gemma, Phi-3) llama.cpp needs the SentencePiece model, so it is copied from the base.
    """
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(target)
    own = base / SENTENCEPIECE
    if own.exists() and not (target / SENTENCEPIECE).exists():
        shutil.copy(own, target / SENTENCEPIECE)

"""One entry per format: its facts, how it is written, how it is read again, what its card says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from remote_trainer.errors import ExportError
from remote_trainer.export import writing
from remote_trainer.export.model_card import (
    CardFacts,
    model_card,
    modelfile,
    use_adapter,
    use_gguf,
    use_merged,
)
from remote_trainer.export.needs import lacks_bitsandbytes, lacks_nothing
from remote_trainer.export.proof import Expected, unreadable
from remote_trainer.export.source import Source
from remote_trainer.export.writing import Proof, Tell, adapter_file, gguf_file
from remote_trainer.export_formats import EXPORT_FORMATS, ExportFormat
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.run_dir import write_json, write_text

_FOUR_BITS_TAKE = (
    "; the slope is roughly the share of the training effect that is left. 4 bits distort a small "
    "model strongly; try merged_16bit or a GGUF of type q4_k_m"
)


def _no_file(source: Source, folder: Path) -> str:
    return ""


def _name_of_gguf(source: Source, folder: Path) -> str:
    return gguf_file(source, folder).name


def _name_of_adapter(source: Source, folder: Path) -> str:
    file = adapter_file(source, folder)
    return file.name if file.exists() else ""


def _add_nothing(facts: CardFacts, folder: Path, file: str) -> None:
    pass


def _add_modelfile(facts: CardFacts, folder: Path, file: str) -> None:
    write_text(folder / "Modelfile", modelfile(file))


def _name_base(facts: CardFacts, folder: Path, file: str) -> None:
    """PEFT writes the folder that the base was loaded from, which is nobody else's business."""
    config = folder / "adapter_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {**settings, "base_model_name_or_path": facts.base_model})


@dataclass(frozen=True, kw_only=True)
class Format:
    """What `EXPORT_FORMATS` says of a format, and its functions."""

    facts: ExportFormat
    write: Callable[[Source, Path, Tell], None]
    """Fills an empty folder."""
    prove: Callable[[Source, Path, Expected, Tell], Proof]
    """Reads it in a fresh process."""
    missing: Callable[[str], list[str]] = lacks_nothing
    """What this environment lacks for a gguf_type, each with the way to get it."""
    gguf_types: tuple[str, ...] = ()
    """The types that `export --gguf-type` can ask for."""
    file_per_type: bool = False
    """Files of several types stand in the folder, each with its proof."""
    if_slope_is_low: str = ""
    """What people are told where nothing but the slope is wrong, and part of it is there."""
    library: str = "transformers"
    """What the hub loads it with."""
    tags: tuple[str, ...] = ()
    use: Callable[[CardFacts, str], str]
    """How to load it, in Markdown; told the name of its GGUF."""
    card_file: Callable[[Source, Path], str] = _no_file
    """Name of the GGUF that its card speaks of; empty where there is none."""
    add_files: Callable[[CardFacts, Path, str], None] = _add_nothing
    """Writes what goes along with the card."""


FORMATS: dict[str, Format] = {
    "lora": Format(
        facts=EXPORT_FORMATS["lora"],
        write=writing.write_lora,
        prove=writing.prove_lora,
        gguf_types=gguf.CONVERTED,
        library="peft",
        tags=("lora",),
        use=use_adapter,
        card_file=_name_of_adapter,
        add_files=_name_base,
    ),
    "lora_gguf": Format(
        facts=EXPORT_FORMATS["lora_gguf"],
        write=writing.write_lora_gguf,
        prove=writing.prove_lora_gguf,
        missing=gguf.missing_parts,
        use=use_adapter,
    ),
    "merged_16bit": Format(
        facts=EXPORT_FORMATS["merged_16bit"],
        write=writing.write_merged_16bit,
        prove=writing.prove_merged_16bit,
        use=partial(use_merged, "merged_16bit", served=True),
    ),
    "merged_4bit": Format(
        facts=EXPORT_FORMATS["merged_4bit"],
        write=writing.write_merged_4bit,
        prove=writing.prove_merged_4bit,
        missing=lacks_bitsandbytes,
        if_slope_is_low=_FOUR_BITS_TAKE,
        use=partial(use_merged, "merged_4bit", served=False),
    ),
    "gguf": Format(
        facts=EXPORT_FORMATS["gguf"],
        write=writing.write_gguf,
        prove=writing.prove_gguf,
        missing=gguf.missing_parts,
        gguf_types=gguf.GGUF_TYPES,
        file_per_type=True,
        library="gguf",
        use=use_gguf,
        card_file=_name_of_gguf,
        add_files=_add_modelfile,
    ),
}


def missing_parts(form: str, gguf_type: str) -> list[str]:
    """What this environment lacks for a format, each with the way to get it."""
    return FORMATS[form].missing(gguf_type)


def describe(form: str, source: Source, folder: Path) -> None:
    """Model card, the base's licence files, and what else stands beside a format's weights."""
    for file in source.base.iterdir():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE")):
            shutil.copy(file, folder / file.name)
    if source.facts is None:
        return
    this = FORMATS[form]
    name = this.card_file(source, folder)
    card = model_card(
        source.facts, this.facts.title, this.library, this.tags, this.use(source.facts, name)
    )
    write_text(folder / "README.md", card)
    this.add_files(source.facts, folder, name)


def prove(form: str, source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    """Content of proof.json for what stands in ``folder``."""
    try:
        return FORMATS[form].prove(source, folder, expected, tell)
    except ExportError as error:
        return unreadable(str(error))

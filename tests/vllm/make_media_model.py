"""Make a tiny model that takes pictures or sounds, out of random numbers, as a folder for vLLM.

    make_media_model.py pictures|sounds TEXT_MODEL FOLDER

It is wired as Idefics3 or Qwen2-Audio are and knows nothing: what it says is noise, but always the
same noise for the same picture or sound, and other noise for another. Its tokenizer is that of
TEXT_MODEL, the folder that make_model.py writes. Runs in the environment that recipe.py makes
(torch, transformers; no torchvision); asks nothing of the network.
"""

# The environment of the type checker has none of those packages.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    Idefics3VisionConfig,
    LlamaConfig,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)


SEED = 32

WIDTH = 64  # of all hidden layers
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}  # 32 is vLLM's least size of a head
# Large enough that the picture outweighs the bare wiring, in which each token follows from the
# one before it.
SPREAD = {"initializer_range": 0.3}

EDGE = 64  # pixels; every picture is made a square of this size
PATCH = 8  # pixels
SHUFFLE = 2  # so many patches, in either direction, become one token: 16 for a picture

# Markers of TEXT_MODEL that no prompt needs, and what they become: so its vocabulary stays.
PICTURE = {
    "<jupyter_start>": "<image>",
    "<jupyter_text>": "<fake_token_around_image>",
    "<jupyter_code>": "<global-img>",
    "<jupyter_output>": "<end_of_utterance>",
}
SOUND = {
    "<jupyter_start>": "<|AUDIO|>",
    "<jupyter_text>": "<|audio_bos|>",
    "<jupyter_code>": "<|audio_eos|>",
}

TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- for part in message['content'] -%}
{{ part['text'] if part['type'] == 'text' else 'MARKER' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"""


def make_pictures(text_model: Path, folder: Path) -> None:
    """Write a model which looks at pictures: Idefics3, as the first SmolVLM."""
    tokenizer = renamed_tokenizer(text_model, folder, PICTURE)
    eyes = {"image_size": EDGE, "patch_size": PATCH, "hidden_size": WIDTH}
    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(**eyes, intermediate_size=WIDTH, **LAYERS, **SPREAD),
        text_config=LlamaConfig(**language_sizes(tokenizer)),
        scale_factor=SHUFFLE,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    edge = {"longest_edge": EDGE}
    processor = Idefics3Processor(
        # The one that asks for no torchvision.
        Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        image_seq_len=(EDGE // PATCH // SHUFFLE) ** 2,
        chat_template=TEMPLATE.replace("MARKER", "<image>"),
    )
    save(Idefics3ForConditionalGeneration, config, processor, folder)


def make_sounds(text_model: Path, folder: Path) -> None:
    """Write a model which listens: Qwen2-Audio, with Whisper's encoder for its ears."""
    tokenizer = renamed_tokenizer(text_model, folder, SOUND)
    language = Qwen2Config(**language_sizes(tokenizer))
    ears = Qwen2AudioEncoderConfig(
        d_model=WIDTH,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=WIDTH,
        **SPREAD,
    )
    config = Qwen2AudioConfig(
        audio_config=ears,
        text_config=language,
        audio_token_id=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=False,
    )
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=ears.num_mel_bins),
        tokenizer,
        chat_template=TEMPLATE.replace("MARKER", "<|audio_bos|><|AUDIO|><|audio_eos|>"),
    )
    save(Qwen2AudioForConditionalGeneration, config, processor, folder)


def renamed_tokenizer(text_model: Path, folder: Path, names: dict[str, str]) -> Any:
    """Return the tokenizer of *text_model* with other names for some of its markers."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (text_model / name).read_text()
        for old, new in names.items():
            assert json.dumps(old) in text, f"{old} is no marker of {text_model}"
            text = text.replace(json.dumps(old), json.dumps(new))
        (folder / name).write_text(text)
    # Else it looks for more on the network.
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def language_sizes(tokenizer: Any) -> dict[str, Any]:
    """Return what the language model is made of."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
        **LAYERS,
        **SPREAD,
    }


def save(model: Any, config: Any, processor: Any, folder: Path) -> None:
    """Write a model of that class with random weights, and what prepares its input."""
    torch.manual_seed(SEED)
    # 32 bits, which leave rounding no say in which of two tokens is the likelier.
    model(config).to(torch.float32).save_pretrained(folder)
    processor.save_pretrained(folder)
    # transformers 5.19 doubles a part of the names in Qwen2-Audio, and vLLM looks for them single.
    weights = str(folder / "model.safetensors")
    named = {name.replace(".model.model.", ".model."): w for name, w in load_file(weights).items()}
    save_file(named, weights, metadata={"format": "pt"})


MAKERS = {"pictures": make_pictures, "sounds": make_sounds}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a tiny model that takes media.")
    parser.add_argument("kind", choices=MAKERS)
    parser.add_argument("text_model", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    MAKERS[arguments.kind](arguments.text_model, arguments.folder)

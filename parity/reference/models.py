"""Builds tiny models of the FLUX family: every part that the real ones have, a few megabytes, random weights."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

# Merges of the real CLIP vocabulary that the tiny one keeps.
N_MERGES = 1000
DYNAMIC_SHIFT = {"shift": 3.0, "use_dynamic_shifting": True}
MODELS = {
    # Sharded, as the real one is.
    "flux-dev-tiny": {"seed": 1, "guidance_embeds": True, "schedule": DYNAMIC_SHIFT, "shard_size": "400KB"},
    "flux-schnell-tiny": {"seed": 2, "guidance_embeds": False, "schedule": {"shift": 1.0}, "shard_size": "5GB"},
    "flux-kontext-tiny": {
        "seed": 3, "guidance_embeds": True, "schedule": DYNAMIC_SHIFT, "shard_size": "5GB",
        "pipeline": FluxKontextPipeline,
    },
    "flux-control-tiny": {
        "seed": 4, "guidance_embeds": True, "schedule": DYNAMIC_SHIFT, "shard_size": "5GB",
        "transformer": {"in_channels": 128, "out_channels": 64}, "pipeline": FluxControlPipeline,
    },
}  # fmt: skip

TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "axes_dims_rope": [4, 14, 14],
    "joint_attention_dim": 48,
    "pooled_projection_dim": 32,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "projection_dim": 32,
    "vocab_size": 2 * 256 + 2 + N_MERGES,
    # The ids of the real model's configuration, which do not occur in its vocabulary; see the pooled output.
    "bos_token_id": 0,
    "eos_token_id": 2,
}
T5 = {
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 96,
    "num_heads": 4,
    "num_layers": 3,
    "vocab_size": 1056,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}
VAE = {
    "block_out_channels": [16, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 8,
    "sample_size": 64,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@torch.no_grad()
def build(name: str, tokenizers: Path, t5_tokenizer: Path, folder: Path) -> None:
    """Writes a model in the folder layout of diffusers, its weights in bfloat16."""
    spec = MODELS[name]
    generator = torch.Generator().manual_seed(spec["seed"])
    changes = spec.get("transformer", {})
    transformer = FluxTransformer2DModel(**(TRANSFORMER | changes), guidance_embeds=spec["guidance_embeds"])
    clip, t5, vae = CLIPTextModel(CLIPTextConfig(**CLIP)), T5EncoderModel(T5Config(**T5)), AutoencoderKL(**VAE)
    randomize(transformer, 0.8, generator)
    randomize(clip, 0.7, generator)
    randomize(t5, 0.7, generator)
    randomize(vae, 1.0, generator)
    # Leaves the picture's values mostly within the range that is not clipped.
    vae.decoder.conv_out.weight.mul_(0.75)
    tiny_clip_tokenizer(tokenizers / "clip_full", folder / "tokenizer")
    shutil.copytree(t5_tokenizer, folder / "tokenizer_2", dirs_exist_ok=True)

    pipeline = spec.get("pipeline", FluxPipeline)(
        scheduler=FlowMatchEulerDiscreteScheduler(**spec["schedule"]),
        text_encoder=clip,
        text_encoder_2=t5,
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        transformer=transformer,
        vae=vae,
    ).to(torch.bfloat16)
    written = folder.with_name(folder.name + ".written")
    pipeline.save_pretrained(written, max_shard_size=spec["shard_size"])
    for part in ("scheduler", "text_encoder", "text_encoder_2", "transformer", "vae", "model_index.json"):
        move(written / part, folder / part)
    shutil.rmtree(written)
    name_fast_tokenizer(folder / "model_index.json")
    restore_prefix("text_model.", folder / "text_encoder" / "model.safetensors")


def randomize(model: torch.nn.Module, gain: float, generator: torch.Generator) -> None:
    """Normal weights whose layers keep the scale of their input; norms and biases random, so a forgotten one shows."""
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "relative_attention_bias" in name:
            value.copy_(noise)
        elif name.endswith("bias"):
            value.copy_(0.05 * noise)
        elif value.dim() == 1:
            value.copy_(1.0 + 0.15 * noise)
        elif "embedding.weight" in name:
            value.copy_(0.6 * noise)
        elif "shared.weight" in name:
            value.copy_(0.1 * noise)
        else:
            value.copy_(gain / value[0].numel() ** 0.5 * noise)
            # T5 does not scale its attention's logits, so its queries are small from the start.
            if name.endswith("SelfAttention.q.weight"):
                value.mul_(0.25)


def tiny_clip_tokenizer(full: Path, folder: Path) -> None:
    """The first merges of the real vocabulary, renumbered: the bytes, the bytes that end a word, the merges, two ends."""
    folder.mkdir(parents=True, exist_ok=True)
    version, *merges = (full / "merges.txt").read_text().splitlines()
    merges = merges[:N_MERGES]
    by_id = sorted(json.loads((full / "vocab.json").read_text()).items(), key=lambda item: item[1])
    words = [word for word, _ in by_id[: 2 * 256]] + [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: idx for idx, word in enumerate(words)}
    (folder / "merges.txt").write_text("\n".join([version, *merges]) + "\n")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(full / name, folder / name)


def restore_prefix(prefix: str, path: Path) -> None:
    """transformers 5 saves CLIP and SigLIP without the prefix that published checkpoints have."""
    weights = load_file(path)
    save_file({name if name.startswith(prefix) else prefix + name: v for name, v in weights.items()}, path)


def name_fast_tokenizer(path: Path) -> None:
    """transformers 5 has one T5 tokenizer; published indexes call it by its older name."""
    index = json.loads(path.read_text())
    index["tokenizer_2"] = ["transformers", "T5TokenizerFast"]
    path.write_text(json.dumps(index, indent=2) + "\n")


def move(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)

"""Records whole small models whose weights bring out what a run hides: each epsilon, the flavor of each GELU.

In a case `norms` no layer adds anything much larger than an epsilon's root to what it is given, so that every norm on the
way sees little; in a case `gelu` what the activation sees is large.
"""

from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from .layers import Tensors, parameters, randomized

SEED = 77
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "cross_attention_dim": 6,
    "transformer_layers_per_block": [1, 2],
    "attention_head_dim": [1, 2],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 5 + 6 * 4,
}
FLUX = {
    "in_channels": 8,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "axes_dims_rope": [2, 2, 4],
    "joint_attention_dim": 6,
    "pooled_projection_dim": 5,
    "guidance_embeds": True,
}
CLIP = {
    "vocab_size": 12,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "projection_dim": 6,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
T5 = {
    "vocab_size": 12,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_heads": 2,
    "num_layers": 1,
    "feed_forward_proj": "gated-gelu",
}
TOKENS = torch.tensor([[3, 7, 5, 1, 11, 4]])
# Where a parameter's name has the first, its values are times the second.
LITTLE = 1e-3


@torch.no_grad()
def record_towers(path: Path) -> None:
    """`<model>.<case>.{<parameter>,<input>,output}`."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: Tensors = {}
    for part in (unet, flux, clip, t5):
        tensors |= part(generator)
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    path.chmod(0o644)


def unet(generator: torch.Generator) -> Tensors:
    inputs = {
        "sample": torch.randn(1, 4, 7, 6, generator=generator),
        "txt": torch.randn(1, 3, 6, generator=generator),
        "pooled": torch.randn(1, 5, generator=generator),
        "sizes": torch.tensor([56.0, 48.0, 0.0, 0.0, 56.0, 48.0]),
    }
    little = ["conv_in", "conv1", "conv2", "time_emb_proj", "proj_in", "to_out", "net.2"]
    # What is carried on keeps its size, and what is added to it on the way has to be as little.
    little += ["conv_shortcut.bias", "samplers.0.conv.bias", "proj_out.bias"]
    cases = {"norms": (little, 1.0), "gelu": ([], 6.0)}
    tensors: Tensors = {}
    for case, (names, inner) in cases.items():
        model = scaled(UNet2DConditionModel(**UNET), generator, names, {"net.0.proj": inner})
        output = model(
            inputs["sample"], torch.tensor(321.0), inputs["txt"],
            added_cond_kwargs={"text_embeds": inputs["pooled"], "time_ids": inputs["sizes"][None]},
        ).sample  # fmt: skip
        tensors |= named(f"unet.{case}", model, inputs | {"output": output})
    return tensors


def flux(generator: torch.Generator) -> Tensors:
    inputs = {
        "img": torch.randn(1, 4, 8, generator=generator),
        "txt": torch.randn(1, 3, 6, generator=generator),
        "pooled": torch.randn(1, 5, generator=generator),
    }
    little = ["x_embedder", "context_embedder", "to_q", "to_k", "add_q_proj", "add_k_proj"]
    little += ["to_out", "to_add_out", "net.2", "single_transformer_blocks.0.proj_out"]
    cases = {"norms": (little, 1.0), "gelu": ([], 6.0)}
    img_ids = torch.tensor([[0.0, row, column] for row in range(2) for column in range(2)])
    tensors: Tensors = {}
    for case, (names, inner) in cases.items():
        model = scaled(FluxTransformer2DModel(**FLUX), generator, names, {"net.0.proj": inner, "proj_mlp": inner})
        output = model(
            hidden_states=inputs["img"], encoder_hidden_states=inputs["txt"], pooled_projections=inputs["pooled"],
            timestep=torch.tensor([0.5]), guidance=torch.tensor([3.5]), img_ids=img_ids, txt_ids=torch.zeros(3, 3),
        ).sample  # fmt: skip
        tensors |= named(f"flux.{case}", model, inputs | {"output": output})
    return tensors


def clip(generator: torch.Generator) -> Tensors:
    little = ["embedding", "out_proj", "fc2"]
    cases = {"norms": (little, "gelu", 1.0), "gelu": ([], "gelu", 3.0), "quick_gelu": ([], "quick_gelu", 3.0)}
    tensors: Tensors = {}
    for case, (names, hidden_act, inner) in cases.items():
        model = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP, hidden_act=hidden_act))
        model = scaled(model, generator, names, {"fc1": inner})
        answer = model(TOKENS, output_hidden_states=True)
        outputs = {"penultimate": answer.hidden_states[-2], "last_hidden": answer.last_hidden_state}
        tensors |= named(f"clip.{case}", model, outputs | {"pooled": answer.text_embeds})
    return tensors


def t5(generator: torch.Generator) -> Tensors:
    cases = {"norms": (["shared", ".o.", "wo"], 1.0), "gelu": ([], 3.0)}
    tensors: Tensors = {}
    for case, (names, inner) in cases.items():
        model = scaled(T5EncoderModel(T5Config(**T5)), generator, names, {"wi_0": inner})
        tensors |= named(f"t5.{case}", model, {"output": model(TOKENS).last_hidden_state})
    return tensors


def scaled(
    model: torch.nn.Module, generator: torch.Generator, little: list[str], factors: dict[str, float]
) -> torch.nn.Module:
    model = randomized(model.eval(), generator)
    for name, value in model.named_parameters():
        for part, factor in {**dict.fromkeys(little, LITTLE), **factors}.items():
            if part in name:
                value.mul_(factor)
    return model


def named(prefix: str, model: torch.nn.Module, values: Tensors) -> Tensors:
    """transformers 5 leaves out a prefix that published checkpoints have; loaders take both."""
    return parameters(prefix, model) | {f"{prefix}.{name}": value for name, value in values.items()}

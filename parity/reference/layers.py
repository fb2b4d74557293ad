"""Records single layers on inputs that bring out what a whole run hides: an epsilon, the flavor of a GELU."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import apply_rotary_emb, get_timestep_embedding
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle, RMSNorm
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from diffusers.models.upsampling import Upsample2D
from safetensors.torch import save_file
from transformers import T5Config
from transformers.activations import ACT2FN
from transformers.models.t5.modeling_t5 import T5Attention, T5DenseGatedActDense, T5LayerNorm

SEED = 2024
# Scales of the rows of a norm's input. At the small ones the variance is about as large as an epsilon.
ROW_SCALES = [1.0, 30.0, 1e-2, 3e-3, 1e-3, 3e-4, 0.0]

Tensors = dict[str, torch.Tensor]


@torch.no_grad()
def record_layers(path: Path) -> None:
    """`<layer>.<case>.<role>`: role is `input`, `output`, or the layer's own name of a parameter."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: Tensors = {}
    for part in PARTS:
        tensors.update(part(generator))
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    path.chmod(0o644)


def activations(_: torch.Generator) -> Tensors:
    edges = torch.tensor([-100.0, -20.0, -1e-6, -0.0, 0.0, 1e-6, 20.0, 100.0])
    x = torch.cat([torch.linspace(-12.0, 12.0, 961), edges])
    functions = {
        "gelu.tanh": lambda x: F.gelu(x, approximate="tanh"),
        "gelu.erf": F.gelu,
        "gelu.new": ACT2FN["gelu_new"],
        "gelu.quick": ACT2FN["quick_gelu"],
        "silu.plain": F.silu,
    }
    return {f"{name}.input": x for name in functions} | {f"{name}.output": f(x) for name, f in functions.items()}


def norms(generator: torch.Generator) -> Tensors:
    dim = 64
    scales = torch.tensor(ROW_SCALES)[:, None]
    rows = torch.randn(len(ROW_SCALES), dim, generator=generator) * scales
    # A layer norm takes an offset away again; in the last row nothing else is left.
    shifted = rows + torch.where(scales > 0, 0.5 * scales, 0.5)
    layers = {
        "layer_norm.eps1e-5": (torch.nn.LayerNorm(dim, eps=1e-5), shifted),
        "layer_norm.eps1e-6": (torch.nn.LayerNorm(dim, eps=1e-6), shifted),
        "layer_norm.eps1e-6_plain": (torch.nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False), shifted),
        "rms_norm.eps1e-6": (RMSNorm(dim, eps=1e-6), rows),
        "rms_norm.eps1e-5": (RMSNorm(dim, eps=1e-5), rows),
        "rms_norm.t5": (T5LayerNorm(dim, eps=1e-6), rows),
    }
    return module_tensors(layers, generator)


def group_norms(generator: torch.Generator) -> Tensors:
    tensors: Tensors = {}
    for groups, channels in ((8, 32), (32, 64)):
        scales = torch.tensor(ROW_SCALES)[torch.arange(groups) % len(ROW_SCALES)].repeat_interleave(channels // groups)
        x = (torch.randn(2, channels, 5, 6, generator=generator) + 0.25) * scales[:, None, None]
        for spelled, eps in (("1e-5", 1e-5), ("1e-6", 1e-6)):
            name = f"group_norm.groups{groups}_eps{spelled}"
            tensors |= module_tensors({name: (torch.nn.GroupNorm(groups, channels, eps=eps), x)}, generator)
            tensors[f"{name}.output_silu"] = F.silu(tensors[f"{name}.output"])
    return tensors


def modulated_norms(generator: torch.Generator) -> Tensors:
    """The norms that a FLUX block steers by time and text; the modulation's parts are named as they are used."""
    dim = 64
    x = torch.randn(2, 3, dim, generator=generator) * torch.tensor([1.0, 1e-2, 1e-3])[:, None]
    vec = torch.randn(2, dim, generator=generator)
    zero, single = randomized(AdaLayerNormZero(dim), generator), randomized(AdaLayerNormZeroSingle(dim), generator)
    final = randomized(AdaLayerNormContinuous(dim, dim, elementwise_affine=False, eps=1e-6), generator)
    double_parts = ("output", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")
    named = {
        "ada_norm.zero": (zero, dict(zip(double_parts, zero(x, emb=vec)))),
        "ada_norm.zero_single": (single, dict(zip(("output", "gate"), single(x, emb=vec)))),
        "ada_norm.continuous": (final, {"output": final(x, vec)}),
    }
    tensors: Tensors = {}
    for name, (module, outputs) in named.items():
        tensors |= parameters(name, module) | {f"{name}.{part}": value for part, value in outputs.items()}
        tensors |= {f"{name}.input": x, f"{name}.vec": vec}
    return tensors


def embeddings(_: torch.Generator) -> Tensors:
    t = torch.tensor([0.0, 0.5, 1.0, 28.38, 283.825, 513.813, 703.953, 863.777, 999.0, 1000.0, 3500.0, 30000.0])
    tensors: Tensors = {}
    for dim in (256, 320):
        name = f"timestep_embedding.dim{dim}"
        tensors[f"{name}.input"] = t
        tensors[f"{name}.output"] = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    return tensors


def rope(generator: torch.Generator) -> Tensors:
    text = torch.zeros(3, 3)
    grid = torch.tensor([[0.0, row, col] for row in (0, 1, 2, 31, 63, 95) for col in (0, 1, 5, 40, 63, 95)])
    reference = torch.tensor([[1.0, row, col] for row in (0, 7, 63) for col in (0, 3, 127)])
    ids = torch.cat([text, grid, reference])
    tensors: Tensors = {}
    for axes in ([16, 56, 56], [4, 14, 14]):
        name = "rope.axes" + "_".join(map(str, axes))
        cos, sin = FluxPosEmbed(theta=10000, axes_dim=axes)(ids)
        x = torch.randn(1, len(ids), 2, sum(axes), generator=generator)
        tensors |= {f"{name}.ids": ids, f"{name}.cos": cos, f"{name}.sin": sin, f"{name}.input": x}
        tensors[f"{name}.output"] = apply_rotary_emb(x, (cos, sin), sequence_dim=1)
    return tensors


def t5(generator: torch.Generator) -> Tensors:
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_heads=4, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    distance = torch.arange(-600, 601)
    biased = randomized(T5Attention(config, has_relative_attention_bias=True).eval(), generator)
    dense = randomized(T5DenseGatedActDense(config).eval(), generator)
    x = torch.randn(2, 5, 32, generator=generator)
    return {
        "t5_bias.buckets.input": distance,
        "t5_bias.buckets.output": T5Attention._relative_position_bucket(distance),
        "t5_bias.table.weight": biased.relative_attention_bias.weight,
        "t5_bias.table.output": biased.compute_bias(150, 150),
        "t5_feed_forward.gated.input": x,
        "t5_feed_forward.gated.output": dense(x),
    } | parameters("t5_feed_forward.gated", dense)


def feed_forwards(generator: torch.Generator) -> Tensors:
    """Inputs are large, so that the two approximations of GELU come apart."""
    x = torch.randn(2, 7, 32, generator=generator) * 4.0
    layers = {
        "feed_forward.geglu": (FeedForward(32, activation_fn="geglu"), x),
        "feed_forward.gelu_tanh": (FeedForward(32, activation_fn="gelu-approximate"), x),
        "feed_forward.gelu_erf": (FeedForward(32, activation_fn="gelu"), x),
    }
    return module_tensors(layers, generator)


def attention(generator: torch.Generator) -> Tensors:
    """`plain` has moderate logits, `sharp` ones that overflow a softmax that does not subtract the maximum."""
    tensors: Tensors = {}
    for name, scale in (("plain", 1.0), ("sharp", 30.0)):
        q, k, v = (torch.randn(2, 3, length, 32, generator=generator) for length in (21, 37, 37))
        q = q * scale
        inputs = {"q": q, "k": k, "v": v, "output": F.scaled_dot_product_attention(q, k, v)}
        tensors |= {f"attention.{name}.{part}": value for part, value in inputs.items()}
    q, k, v = (torch.randn(1, 2, 19, 16, generator=generator) for _ in range(3))
    inputs = {"q": q, "k": k, "v": v, "output": F.scaled_dot_product_attention(q, k, v, is_causal=True)}
    return tensors | {f"attention.causal.{part}": value for part, value in inputs.items()}


def convolutions(generator: torch.Generator) -> Tensors:
    x = torch.randn(2, 16, 9, 12, generator=generator)
    resnet = {"groups": 8, "eps": 1e-6, "temb_channels": None}
    layers = {
        "conv.k3": (torch.nn.Conv2d(16, 24, 3, padding=1), x),
        "conv.k1": (torch.nn.Conv2d(16, 24, 1), x),
        # Pads on the right and below alone.
        "conv.downsample": (Downsample2D(16, use_conv=True, out_channels=16, padding=0), x),
        "conv.upsample": (Upsample2D(16, use_conv=True, out_channels=16), x),
        "resnet.same": (ResnetBlock2D(in_channels=16, out_channels=16, **resnet), x),
        "resnet.shortcut": (ResnetBlock2D(in_channels=16, out_channels=24, **resnet), x),
    }
    tensors: Tensors = {}
    for name, (module, value) in layers.items():
        module = randomized(module.eval(), generator)
        output = module(value, None) if isinstance(module, ResnetBlock2D) else module(value)
        tensors |= parameters(name, module) | {f"{name}.input": value, f"{name}.output": output}
    return tensors


def module_tensors(layers: dict[str, tuple[torch.nn.Module, torch.Tensor]], generator: torch.Generator) -> Tensors:
    tensors: Tensors = {}
    for name, (module, x) in layers.items():
        module = randomized(module.eval(), generator)
        tensors |= parameters(name, module) | {f"{name}.input": x, f"{name}.output": module(x)}
    return tensors


def randomized(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """Every parameter random, those of norms around one, so that a forgotten one shows."""
    for name, value in module.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if value.dim() > 1:
            fan_in = value[0].numel()
            value.copy_(noise / fan_in**0.5)
        elif name.endswith("weight"):
            value.copy_(1.0 + 0.2 * noise)
        else:
            value.copy_(0.1 * noise)
    return module


def parameters(prefix: str, module: torch.nn.Module) -> Tensors:
    return {f"{prefix}.{name}": value.detach().clone() for name, value in module.named_parameters()}


PARTS = (
    activations, norms, group_norms, modulated_norms, embeddings, rope, t5, feed_forwards, attention, convolutions,
)  # fmt: skip

"""Records Depth Anything at tiny size: models, layers, forward passes, and pictures to depth maps."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer
from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size
from transformers.pipelines import DepthEstimationPipeline

from .layers import parameters, randomized

# Five by five positions, and stages that are neither all of the layers nor the last ones alone.
BACKBONE = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_hidden_layers": 6,
    "image_size": 70,
    "patch_size": 14,
    "out_features": ["stage1", "stage3", "stage4", "stage5"],
    "reshape_hidden_states": False,
}
NECK = {
    "reassemble_hidden_size": 48,
    "neck_hidden_sizes": [8, 12, 16, 24],
    "fusion_hidden_size": 16,
    "head_hidden_size": 8,
    "head_in_index": -1,
}
MODELS = {
    "depth-anything-tiny": {"seed": 31, "backbone": {}, "neck": {}, "bias": 0.9},
    # The other form of every part that has two.
    "depth-anything-metric-tiny": {
        "seed": 32,
        "backbone": {"use_swiglu_ffn": True, "qkv_bias": False, "apply_layernorm": False, "num_hidden_layers": 5},
        "neck": {"depth_estimation_type": "metric", "max_depth": 20, "head_in_index": 2},
        "bias": 0.0,
    },
}
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 98, "width": 98},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": False,
    "size_divisor": None,
}
# Heights and widths of forward passes: as trained, wide, tall, smaller, one patch.
SIZES = {
    "depth-anything-tiny": [(70, 70), (70, 98), (98, 42), (42, 28), (14, 14)],
    "depth-anything-metric-tiny": [(70, 70), (42, 56)],
}
PICTURES = ["in_64x64", "in_100x70", "in_150x101"]


@torch.no_grad()
def build(name: str, folder: Path) -> None:
    """Writes a model in the layout of the hub: configuration, processor, weights in bfloat16."""
    spec = MODELS[name]
    backbone = Dinov2Config(**(BACKBONE | spec["backbone"]))
    model = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **(NECK | spec["neck"])))
    generator = torch.Generator().manual_seed(spec["seed"])
    for parameter_name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if parameter_name.endswith("bias"):
            value.copy_(0.05 * noise)
        elif value.dim() == 1:
            value.copy_(1.0 + 0.2 * noise)
        elif parameter_name.endswith(("cls_token", "position_embeddings", "mask_token")):
            value.copy_(0.5 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    # Keeps the depth mostly above the zero at which it is cut off.
    model.head.conv3.bias.add_(spec["bias"])
    model.to(torch.bfloat16).save_pretrained(folder)
    DPTImageProcessorPil(**PROCESSOR).save_pretrained(folder)


@torch.no_grad()
def record_depth(goldens: Path) -> None:
    folder = goldens / "depth"
    folder.mkdir(parents=True, exist_ok=True)
    save(layers(), folder / "layers.safetensors")
    for name in MODELS:
        save(passes(goldens / "models" / name), folder / f"{name}.safetensors")
    record_maps(goldens, folder)
    (folder / "sizes.json").write_text(sizes())


def passes(model_folder: Path) -> dict[str, torch.Tensor]:
    """`<height>x<width>.<stage>` of forward passes over random pictures."""
    model = DepthAnythingForDepthEstimation.from_pretrained(model_folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for height, width in SIZES[model_folder.name]:
        seen = {"pixel_values": torch.randn(1, 3, height, width, generator=generator)}
        hooks = [
            module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
            for name, module in watched(model)
        ]
        seen["predicted_depth"] = model(seen["pixel_values"]).predicted_depth
        for hook in hooks:
            hook.remove()
        tensors |= {f"{height}x{width}.{name}": value for name, value in seen.items()}
    return tensors


def watched(model: DepthAnythingForDepthEstimation):
    yield "embeddings", model.backbone.embeddings
    last = max(model.backbone.out_indices)
    for idx, layer in enumerate(model.backbone.encoder.layer[:last]):
        yield f"layer_{idx}", layer
    stages = zip(model.neck.reassemble_stage.layers, model.neck.convs, model.neck.fusion_stage.layers)
    for idx, (reassemble, conv, fusion) in enumerate(stages):
        yield f"reassemble_{idx}", reassemble
        yield f"conv_{idx}", conv
        yield f"fusion_{idx}", fusion


def layers() -> dict[str, torch.Tensor]:
    """What a whole pass hides: an epsilon, the flavor of a GELU; and the layers that only this model has."""
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    # Rows so small that the epsilon of their norm shows; the feed-forward sees the others, where GELUs come apart.
    rows = torch.randn(1, 6, 32, generator=generator) * torch.tensor([1e-3, 3e-4, 1e-2, 1.0, 4.0, 8.0])[:, None]
    for name, options in {"layer": {}, "layer_swiglu": {"use_swiglu_ffn": True}}.items():
        config = Dinov2Config(hidden_size=32, num_attention_heads=2, attn_implementation="eager", **options)
        layer = randomized(Dinov2Layer(config).eval(), generator)
        tensors |= parameters(name, layer) | {f"{name}.input": rows, f"{name}.output": layer(rows)}
    x = torch.randn(2, 6, 5, 7, generator=generator)
    for factor in (2, 4):
        name = f"conv_transpose_{factor}"
        conv = randomized(torch.nn.ConvTranspose2d(6, 4, factor, stride=factor), generator)
        tensors |= parameters(name, conv) | {f"{name}.input": x, f"{name}.output": conv(x)}
    how = {
        "bilinear": {"mode": "bilinear", "align_corners": False},
        "bilinear_corners": {"mode": "bilinear", "align_corners": True},
        "bicubic": {"mode": "bicubic", "align_corners": False},
    }
    x = x[:1, :2]
    for name, options in how.items():
        tensors[f"{name}.input"] = x
        for height, width in ((5, 7), (10, 14), (3, 4), (1, 1), (1, 20), (37, 53)):
            tensors[f"{name}.{height}x{width}"] = F.interpolate(x, size=(height, width), **options)
    return tensors


def record_maps(goldens: Path, folder: Path) -> None:
    """A picture, what the processor makes of it, and the map that transformers draws, which other runs start from."""
    model_folder = goldens / "models" / "depth-anything-tiny"
    model = DepthAnythingForDepthEstimation.from_pretrained(model_folder, dtype=torch.float32).eval()
    processor = DPTImageProcessorPil.from_pretrained(model_folder)
    pipeline = DepthEstimationPipeline(model=model, image_processor=processor, device="cpu")
    tensors = {}
    for name in PICTURES:
        picture = Image.open(goldens / "inputs" / f"{name}.png").convert("RGB")
        tensors[f"{name}.pixel_values"] = processor(images=picture, return_tensors="pt")["pixel_values"]
        drawn = pipeline(picture)
        tensors[f"{name}.predicted_depth"] = drawn["predicted_depth"]
        drawn["depth"].save(goldens / "inputs" / f"{name.replace('in_', 'depth_')}.png", optimize=True)
    save(tensors, folder / "maps.safetensors")


def sizes() -> str:
    """What the real processor would resize pictures of many sizes to: `[width, height, width', height']`."""
    rows = []
    for width, height in (
        (518, 518), (1024, 1024), (1024, 768), (768, 1024), (720, 1280), (1280, 720), (1600, 676), (640, 480), (100, 50),
        (50, 100), (33, 47), (256, 1536), (1536, 256), (1536, 640), (999, 1001), (14, 14), (1344, 768), (517, 519),
        (500, 875), (875, 500), (320, 1536), (300, 1536), (1, 1), (3, 200), (1920, 1080), (150, 101),
    ):  # fmt: skip
        size = get_resize_output_image_size(np.zeros((3, height, width)), (518, 518), True, 14)
        rows.append([width, height, size.width, size.height])
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    path.chmod(0o644)

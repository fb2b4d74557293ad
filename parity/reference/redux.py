"""FLUX.1 Redux: a prior turns a picture into tokens among those of the text, and text-to-image does the rest.

Also records towers of one layer, since a whole run hides a wrong epsilon and the other GELU.
"""

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import torch
from diffusers import DiffusionPipeline, FluxPipeline, FluxPriorReduxPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from . import models
from .cases import CAR, MOUNTAIN
from .recorder import Case, Recording

SEED = 2025
MODEL = "flux-redux-tiny"
# What the prior makes zeros of where it has no text encoders: the real model's widths, which it does not look up.
REAL_TEXT_WIDTH, REAL_POOLED_WIDTH = 4096, 768
SIGLIP = {
    "hidden_size": 40,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "image_size": 56,
    "patch_size": 14,
}
# Scales of the positions' embeddings. At the small ones the variance is about as large as an epsilon.
ROW_SCALES = [1.0, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-2, 1e-1, 3e-1]


def redux(name: str, seed: int, note: str = "", blocks: bool = False, **changes) -> Case:
    kwargs = {"image": "in_100x70", "height": 64, "width": 96, "num_inference_steps": 3, "guidance_scale": 2.5}
    kwargs.update(changes)
    return Case(name, FluxPipeline, "flux-dev-tiny", seed, kwargs, note, blocks, prior=prior)


def prior(case: Case, kwargs: dict, pipeline: DiffusionPipeline, goldens: Path, recording: Recording) -> dict:
    """The arguments of text-to-image after the prior has run on those of the case."""
    kwargs = dict(kwargs)
    texts = {}
    if "prompt" in kwargs:
        texts = {name: getattr(pipeline, name) for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")}
    dtype = pipeline.transformer.dtype
    prior = FluxPriorReduxPipeline.from_pretrained(goldens / "models" / MODEL, dtype=dtype, **texts)
    image_weight = kwargs.pop("image_weight", 1.0)
    asked = {name: kwargs.pop(name) for name in ("image", "prompt", "prompt_embeds_scale") if name in kwargs}
    n_before = recording.count("encode_prompt")
    listen(prior, recording, case.blocks)
    config = pipeline.transformer.config
    with widths(config.joint_attention_dim, config.pooled_projection_dim):
        made = prior(**asked)
    assert recording.count("encode_prompt") == n_before, "the prior's own encoding is not that of the run"
    prompt_embeds = made.prompt_embeds.clone()
    prompt_embeds[:, 512:] *= image_weight
    return kwargs | {"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": made.pooled_prompt_embeds}


@contextmanager
def widths(text: int, pooled: int) -> Iterator[None]:
    """Lets the prior make its zeros as wide as the tiny model needs them."""
    zeros, narrowed = torch.zeros, {REAL_TEXT_WIDTH: text, REAL_POOLED_WIDTH: pooled}

    def narrow(*args, **kwargs):
        shape, *rest = args
        if isinstance(shape, tuple):
            shape = (*shape[:-1], narrowed.get(shape[-1], shape[-1]))
        return zeros(shape, *rest, **kwargs)

    torch.zeros = narrow
    try:
        yield
    finally:
        torch.zeros = zeros


def listen(prior: FluxPriorReduxPipeline, recording: Recording, layers: bool) -> None:
    """Keeps what the vision tower sees and says, and with `layers` what each layer says."""
    tower = prior.image_encoder
    heard = {"siglip_last_hidden": tower.post_layernorm, "image_embeds": prior.image_embedder}
    if layers:
        heard |= {"siglip.embeddings": tower.embeddings}
        heard |= {f"siglip.layers.{idx}": layer for idx, layer in enumerate(tower.encoder.layers)}

    def keep_pixels(_module, _args, kwargs):
        recording.keep("redux.pixel_values", kwargs["pixel_values"])

    def keep_output(name):
        def keep(_module, _args, output):
            recording.keep(f"redux.{name}", output if isinstance(output, torch.Tensor) else output[0])

        return keep

    tower.register_forward_pre_hook(keep_pixels, with_kwargs=True)
    for name, module in heard.items():
        module.register_forward_hook(keep_output(name))


@torch.no_grad()
def build(folder: Path) -> None:
    """Writes a tiny prior in the folder layout of diffusers, its weights in bfloat16."""
    generator = torch.Generator().manual_seed(SEED)
    tower = SiglipVisionModel(SiglipVisionConfig(**SIGLIP))
    embedder = ReduxImageEncoder(redux_dim=SIGLIP["hidden_size"], txt_in_features=models.T5["d_model"])
    models.randomize(tower, 0.7, generator)
    models.randomize(embedder, 0.7, generator)
    size = {"height": SIGLIP["image_size"], "width": SIGLIP["image_size"]}
    extractor = SiglipImageProcessorPil(size=size)
    prior = FluxPriorReduxPipeline(image_encoder=tower, feature_extractor=extractor, image_embedder=embedder)
    prior.to(torch.bfloat16).save_pretrained(folder)
    models.restore_prefix("vision_model.", folder / "image_encoder" / "model.safetensors")


@torch.no_grad()
def record_siglip_layers(path: Path) -> None:
    """`<case>.{pixel_values,output}` and the parameters, of towers of one layer and nine patches."""
    generator = torch.Generator().manual_seed(SEED)
    # In `norms` nothing is much larger than a position's embedding, up to the last norm; in `gelu` its input is large.
    towers = {"norms": tower(1e-3, 1e-3, generator), "gelu": tower(2.0, 1.0, generator)}
    tensors = {}
    for name, model in towers.items():
        pixels = torch.randn(1, 3, 6, 6, generator=generator)
        tensors |= {f"{name}.{key}": value.clone() for key, value in model.state_dict().items()}
        tensors[f"{name}.pixel_values"] = pixels
        tensors[f"{name}.output"] = model(pixels).last_hidden_state
        print_sensitivity(name, model, pixels)
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    path.chmod(0o644)


def tower(inner_gain: float, outer_gain: float, generator: torch.Generator) -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, image_size=6, patch_size=2,
        layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh", vision_use_head=False,
    )  # fmt: skip
    model = SiglipVisionModel(config).eval()
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "position_embedding" in name:
            value.copy_(noise * torch.tensor(ROW_SCALES)[:, None])
        elif value.dim() == 1:
            value.copy_(1.0 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise * outer_gain)
        else:
            gain = inner_gain if "fc1" in name else outer_gain if "fc2" in name or "out_proj" in name else 1.0
            value.copy_(gain / value[0].numel() ** 0.5 * noise * (1e-3 if "patch_embedding" in name else 1.0))
    return model


def print_sensitivity(name: str, model: SiglipVisionModel, pixels: torch.Tensor) -> None:
    right = model(pixels).last_hidden_state
    for change in ({"layer_norm_eps": 1e-5}, {"hidden_act": "gelu"}):
        other = SiglipVisionModel(SiglipVisionConfig(**(model.config.to_dict() | change))).eval()
        other.load_state_dict(model.state_dict())
        print(f"{name}, {change}: moves the output by {float((other(pixels).last_hidden_state - right).abs().max()):.1e}")
    exact = model.double()(pixels.double()).last_hidden_state
    print(f"{name}, float64: by {float((exact - right).abs().max()):.1e}")
    model.float()


CASES = [
    redux("flux_redux", 41, "no prompt: 512 text tokens and the pooled text are zeros"),
    redux(
        "flux_redux_text", 42, "a prompt, read by the text encoders; the picture's tokens come after its 512",
        blocks=True, prompt=CAR,
    ),
    redux(
        "flux_redux_scale", 43, "prompt_embeds_scale=0.3 scales the zeros of the text and the picture's tokens",
        image="in_64x64", width=64, prompt_embeds_scale=0.3,
    ),
    redux(
        "flux_redux_text_weight", 2**32 + 44, "a prompt, and the picture's tokens alone times image_weight",
        prompt=MOUNTAIN, image="in_150x101", height=80, width=48, image_weight=0.55, num_images_per_prompt=2,
    ),
    redux("flux_redux_weight_0", 45, "image_weight=0: the picture has no effect", prompt=CAR, image_weight=0.0),
    redux(
        "flux_redux_truecfg", 47, "what is avoided is a text alone, without the picture's tokens",
        image="in_64x64", width=64, true_cfg_scale=2.5, negative_prompt="blurry", max_sequence_length=512,
    ),
    redux(
        "flux_redux_floor", 46, "100x70 is rounded down to 96x64; the picture is looked at as it is",
        image="in_128x96", height=70, width=100, num_inference_steps=2, guidance_scale=3.5,
    ),
]  # fmt: skip

"""The runs of SDXL that are recorded, what each is for, and the tiny models that they take."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from . import models
from .cases import CAR, LONG, MOUNTAIN
from .recorder import Case

ANCESTRAL = (EulerAncestralDiscreteScheduler, {})
KARRAS = (DPMSolverMultistepScheduler, {"use_karras_sigmas": True})
NEGATIVE = "blurry, low quality"


def base(**changes) -> dict:
    """The arguments of a small run, with changes; an argument set to None is left out."""
    kwargs = {
        "prompt": CAR,
        "negative_prompt": NEGATIVE,
        "image": "in_64x64",
        "strength": 0.7,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
    }
    kwargs.update(changes)
    return {key: value for key, value in kwargs.items() if value is not None}


def img2img(name: str, seed: int, kwargs: dict, note: str = "", scheduler: tuple | None = None) -> Case:
    return Case(name, StableDiffusionXLImg2ImgPipeline, "sdxl-tiny", seed, kwargs, note, scheduler=scheduler)


def turbo(name: str, seed: int, kwargs: dict, note: str = "") -> Case:
    return Case(name, StableDiffusionXLImg2ImgPipeline, "sdxl-turbo-tiny", seed, kwargs, note)


def txt2img(name: str, model: str, seed: int, kwargs: dict, note: str = "", scheduler: tuple | None = None) -> Case:
    kwargs = {key: value for key, value in kwargs.items() if key not in ("image", "strength")}
    return Case(name, StableDiffusionXLPipeline, model, seed, kwargs, note, scheduler=scheduler)


CASES = [
    Case(
        "sdxl_img2img", StableDiffusionXLImg2ImgPipeline, "sdxl-tiny", 51,
        base(image="in_96x64", strength=0.6, num_inference_steps=5), blocks=True,
    ),
    turbo(
        "sdxl_turbo_img2img", 61,
        base(negative_prompt=None, image="in_96x64", strength=0.5, num_inference_steps=2, guidance_scale=0.0),
        "the ancestral sampler draws in the last step, too",
    ),
    turbo(
        "sdxl_turbo_4_steps", 201,
        base(prompt=MOUNTAIN, negative_prompt=None, strength=1.0, num_inference_steps=4, guidance_scale=0.0),
    ),
    turbo(
        "sdxl_turbo_guided", 202, base(num_inference_steps=4, strength=0.5, guidance_scale=2.0),
        "guidance and fresh noise in every step",
    ),
    img2img("sdxl_nocfg", 203, base(guidance_scale=1.0), "guidance runs above 1 alone; the negative prompt has no effect"),
    img2img("sdxl_no_negative", 204, base(negative_prompt=None), "no negative prompt is zeros"),
    img2img("sdxl_empty_negative", 204, base(negative_prompt=""), "an empty one is not"),
    img2img(
        "sdxl_prompt_2", 205, base(prompt_2=MOUNTAIN, negative_prompt_2="a photograph of a city at night"),
        "four prompts: the second encoder reads the second ones",
    ),
    img2img("sdxl_empty_prompt", 206, base(prompt="", prompt_2="")),
    img2img("sdxl_long_prompt", 207, base(prompt=LONG, negative_prompt=LONG), "more tokens than CLIP's 77"),
    img2img(
        "sdxl_unicode_prompt", 208,
        base(prompt="Café naïve — schön, 日本語 🎨  ﬁne\tprint ½ it's <|endoftext|> </s> DON'T !", negative_prompt="!!!"),
        "the second tokenizer pads with an exclamation mark",
    ),
    img2img("sdxl_floor", 209, base(image="in_100x70"), "sides are rounded down to multiples of 8: 96x64"),
    img2img(
        "sdxl_odd_latents", 210, base(image="in_150x101", num_inference_steps=2),
        "144x96: 18x12 latents, 9x6 when halved, and 5x3 when halved again",
    ),
    img2img(
        "sdxl_strength_low", 211, base(strength=0.02, num_inference_steps=50), "one step of fifty",
    ),
    img2img("sdxl_strength_03", 212, base(strength=0.3, num_inference_steps=7), "2.1 steps are two"),
    img2img("sdxl_strength_1", 213, base(strength=1.0), "the noised picture, not pure noise"),
    img2img("sdxl_batch2", 214, base(num_images_per_prompt=2), "one draw for the picture, one for the noise of both"),
    img2img("sdxl_guidance_30", 2**32 + 215, base(guidance_scale=30.0), "the largest guidance, a large seed"),
    img2img("sdxl_ancestral_batch2", 216, base(num_images_per_prompt=2), "fresh noise for both at once", ANCESTRAL),
    img2img("sdxl_dpmpp", 217, base(strength=0.6, num_inference_steps=7), "the first step has no estimate before it", KARRAS),
    img2img(
        "sdxl_dpmpp_16_steps", 218, base(strength=0.3, num_inference_steps=16), "long enough for the second order", KARRAS,
    ),
    img2img(
        "sdxl_preset", 222,
        base(
            prompt=CAR + ", highly detailed, cinematic light", negative_prompt="low quality, blurry, deformed",
            num_inference_steps=6,
        ),
        "what an app makes of a prompt that has a style to add", KARRAS,
    ),
    txt2img(
        "sdxl_txt2img", "sdxl-tiny", 219, base(height=40, width=136),
        "17x5 latents: no side can be halved twice",
    ),
    txt2img("sdxl_txt2img_dpmpp", "sdxl-tiny", 220, base(height=64, width=64), "starts from noise of deviation 1", KARRAS),
    txt2img(
        "sdxl_turbo_txt2img", "sdxl-turbo-tiny", 221,
        base(negative_prompt=None, height=64, width=64, num_inference_steps=2, guidance_scale=0.0),
    ),
]  # fmt: skip

TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
# Both of one seed: they differ by their schedule alone, as far as code can tell.
MODELS = {
    "sdxl-tiny": EulerDiscreteScheduler(**TRAINING, timestep_spacing="leading"),
    "sdxl-turbo-tiny": EulerAncestralDiscreteScheduler(**TRAINING, timestep_spacing="trailing"),
}
SEED = 5
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 16,
    "block_out_channels": [32, 48, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 16,
    "cross_attention_dim": 80,
    "transformer_layers_per_block": [1, 1, 2],
    "attention_head_dim": [2, 3, 4],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 40 + 6 * 16,
}
CLIP = {
    "hidden_size": 40,
    "intermediate_size": 160,
    "projection_dim": 40,
    "vocab_size": models.CLIP["vocab_size"],
    "bos_token_id": 0,
    "eos_token_id": 2,
}
FIRST = {**CLIP, "num_attention_heads": 4, "num_hidden_layers": 3, "hidden_act": "quick_gelu"}
SECOND = {**CLIP, "num_attention_heads": 5, "num_hidden_layers": 4, "hidden_act": "gelu"}
VAE = {
    **models.VAE, "latent_channels": 4, "layers_per_block": 2, "scaling_factor": 0.13025, "shift_factor": None,
    "use_quant_conv": True, "use_post_quant_conv": True,
}  # fmt: skip


@torch.no_grad()
def build(name: str, clip_full: Path, folder: Path) -> None:
    """Writes a tiny model in the folder layout of diffusers, its weights in float16."""
    generator = torch.Generator().manual_seed(SEED)
    unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    first, second = CLIPTextModel(CLIPTextConfig(**FIRST)), CLIPTextModelWithProjection(CLIPTextConfig(**SECOND))
    for model, gain in ((unet, 0.8), (first, 0.7), (second, 0.7), (vae, 1.0)):
        models.randomize(model, gain, generator)
    for part in ("tokenizer", "tokenizer_2"):
        models.tiny_clip_tokenizer(clip_full, folder / part)
    pad_with(folder / "tokenizer_2", "!")
    written = folder.with_name(folder.name + ".written")
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        unet=unet,
        scheduler=MODELS[name],
    ).to(torch.float16).save_pretrained(written)
    for part in ("scheduler", "text_encoder", "text_encoder_2", "unet", "vae", "model_index.json"):
        models.move(written / part, folder / part)
    shutil.rmtree(written)
    models.restore_prefix("text_model.", folder / "text_encoder" / "model.safetensors")


def pad_with(folder: Path, token: str) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": token}, indent=2) + "\n")

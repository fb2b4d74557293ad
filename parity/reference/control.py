"""Runs of FLUX.1 control models: a control picture's latents lie on channels of their own, beside the noise."""

from diffusers import FluxControlImg2ImgPipeline, FluxControlPipeline

from .cases import CAR, MOUNTAIN
from .recorder import Case


def control(name: str, seed: int, note: str = "", blocks: bool = False, **changes) -> Case:
    """From noise alone; an argument set to None is left out."""
    kwargs = {
        "prompt": CAR,
        "control_image": "canny_96x64",
        "height": 64,
        "width": 96,
        "num_inference_steps": 4,
        "guidance_scale": 30.0,
        "max_sequence_length": 64,
    }
    kwargs.update(changes)
    pipeline = FluxControlImg2ImgPipeline if "image" in kwargs else FluxControlPipeline
    return Case(name, pipeline, "flux-control-tiny", seed, kwargs, note, blocks)


CASES = [
    control("flux_control_canny", 21, blocks=True),
    control("flux_control_img2img", 22, prompt=MOUNTAIN, image="in_96x64", strength=0.7),
    control(
        "flux_control_floor", 201, "the control picture is stretched to 96x64, which 100x70 is rounded down to",
        control_image="in_150x101", height=70, width=100, num_inference_steps=3, guidance_scale=10.0,
    ),
    control(
        "flux_control_batch2", 2**31 + 7, "each picture of the batch has a control latent sampled for it alone",
        control_image="in_64x64", width=48, num_inference_steps=3, num_images_per_prompt=2,
    ),
    control(
        "flux_control_img2img_strength_03", 203, "five steps, of which two run; an empty prompt",
        prompt="", image="in_100x70", strength=0.3, num_inference_steps=5, guidance_scale=10.0,
    ),
    control(
        "flux_control_img2img_strength_high", 204,
        "begins with pure noise, yet the reference is encoded and a draw spent on it, between the two others",
        image="in_128x96", control_image="in_100x70", strength=0.99, num_inference_steps=3,
    ),
    control(
        "flux_control_img2img_batch2", 205, "upright; two control latents, one latent of the reference, two of noise",
        prompt=MOUNTAIN, image="in_150x101", control_image="in_128x96", height=80, width=56, strength=0.6,
        num_inference_steps=5, num_images_per_prompt=2,
    ),
    control(
        "flux_control_depth", 206, "under the depth map of in_64x64, which the `depth` recordings draw",
        control_image="depth_64x64", width=64, num_inference_steps=3, guidance_scale=10.0,
    ),
    control(
        "flux_control_depth_img2img", 207, prompt=MOUNTAIN, image="in_64x64", control_image="depth_64x64", width=64,
        strength=0.7, guidance_scale=10.0,
    ),
]  # fmt: skip

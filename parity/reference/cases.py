"""The runs that are recorded: each shows something that the others cannot."""

from diffusers import FluxImg2ImgPipeline, FluxKontextPipeline, FluxPipeline

from .recorder import Case

CAR = "a photo of a red car, cinematic lighting, highly detailed"
MOUNTAIN = "watercolor painting of a mountain landscape at sunset"
LONG = (
    "an oil painting of an old harbor town in the early morning, fishing boats with red and blue sails, gulls over the "
    "water, wet cobblestones, a lighthouse on the far pier, women mending nets, a dog asleep on a coil of rope, warm "
    "light in the windows of the inn, thin smoke from the chimneys, distant hills under low clouds, loose brushwork, "
    "muted palette with a few bright accents, in the manner of the late nineteenth century, very large canvas, "
    "museum photograph, even lighting, no frame, no signature, no text, sharp from edge to edge"
)


def base(**changes) -> dict:
    """The arguments of the first case, with changes; an argument set to None is left out."""
    kwargs = {
        "prompt": CAR,
        "image": "in_96x64",
        "height": 64,
        "width": 96,
        "strength": 0.6,
        "num_inference_steps": 5,
        "guidance_scale": 3.5,
        "max_sequence_length": 64,
    }
    kwargs.update(changes)
    return {key: value for key, value in kwargs.items() if value is not None}


def small(**changes) -> dict:
    """As `base`, square and short: for what does not depend on size."""
    return base(**{"image": "in_64x64", "width": 64, "num_inference_steps": 3, **changes})


def img2img(name: str, seed: int | list[int], kwargs: dict, note: str = "", blocks: bool = False) -> Case:
    return Case(name, FluxImg2ImgPipeline, "flux-dev-tiny", seed, kwargs, note, blocks)


CASES = [
    img2img("flux_img2img", 42, base(), blocks=True),
    img2img(
        "flux_img2img_batch2", 12, small(num_images_per_prompt=2),
        "num_images_per_prompt=2, one generator; image_float_hwc is image 0, vae_decode.output has both",
    ),
    Case(
        "flux_schnell_img2img", FluxImg2ImgPipeline, "flux-schnell-tiny", 9,
        base(prompt=MOUNTAIN, strength=0.8, num_inference_steps=4, guidance_scale=0.0, max_sequence_length=256),
        "no guidance embedding; static shift 1.0",
    ),
    Case(
        "flux_txt2img", FluxPipeline, "flux-dev-tiny", 5,
        base(image=None, strength=None, num_inference_steps=4),
    ),
    Case(
        "flux_kontext", FluxKontextPipeline, "flux-kontext-tiny", 31,
        base(
            prompt="turn the sky blue", strength=None, max_area=6144, _auto_resize=False,
            num_inference_steps=4, guidance_scale=2.5,
        ),
        "_auto_resize=False and max_area=64*96 keep it tiny; real default is 1 MP and the "
        "PREFERRED_KONTEXT_RESOLUTIONS table",
        blocks=True,
    ),
    img2img(
        "flux_img2img_truecfg", 101,
        base(true_cfg_scale=4.0, negative_prompt="blurry, low quality, watermark"),
        "two model calls per step, the positive one first; encode_prompt_1 is the negative prompt",
    ),
    img2img(
        "flux_img2img_truecfg_prompt2", 102,
        small(
            prompt_2=MOUNTAIN, true_cfg_scale=2.5,
            negative_prompt="blurry", negative_prompt_2="a photograph of a city at night",
        ),
        "four prompts: CLIP reads prompt and negative_prompt, T5 reads the second ones",
    ),
    img2img(
        "flux_img2img_truecfg_no_negative", 103, small(true_cfg_scale=4.0),
        "no negative prompt: true_cfg_scale has no effect",
    ),
    img2img(
        "flux_img2img_truecfg_empty_negative", 103, small(true_cfg_scale=4.0, negative_prompt=""),
        "an empty negative prompt is a negative prompt",
    ),
    img2img("flux_img2img_resize", 104, base(image="in_150x101"), "the picture is stretched to the output's size"),
    img2img(
        "flux_img2img_enlarge", 105, base(image="in_64x64", height=96, width=128, num_inference_steps=3),
        "the picture is enlarged and its aspect ratio given up",
    ),
    img2img(
        "flux_img2img_floor", 106, base(image="in_100x70", height=70, width=100),
        "sides are rounded down to multiples of 16: 96x64",
    ),
    img2img(
        "flux_img2img_floor8", 107, base(image="in_128x96", height=72, width=88, num_inference_steps=3),
        "multiples of 8 are not enough: 80x64",
    ),
    img2img("flux_img2img_prompt2", 108, base(prompt_2=MOUNTAIN), "CLIP reads prompt, T5 reads prompt_2"),
    img2img(
        "flux_img2img_strength_1", 109, base(strength=1.0, num_inference_steps=4),
        "begins with pure noise, yet the picture is encoded and a draw spent on it",
    ),
    img2img("flux_img2img_strength_03", 110, base(strength=0.3), "five steps, of which two run"),
    img2img("flux_img2img_strength_low", 111, small(strength=0.01), "one step always runs above strength 0"),
    img2img("flux_img2img_seed_large", 2**32 + 123_456_789, small(), "only the low 32 bits of a seed count"),
    img2img("flux_img2img_seed_0", 0, small(guidance_scale=30.0), "seed 0, the largest guidance"),
    img2img("flux_img2img_seq_512", 112, small(max_sequence_length=512), "the default length of the T5 prompt"),
    img2img("flux_img2img_seq_32", 112, small(max_sequence_length=32), "the same run with a shorter T5 prompt"),
    img2img(
        "flux_img2img_long_prompt", 113, small(prompt=LONG), "more tokens than CLIP's 77 and T5's 64", blocks=True
    ),
    img2img("flux_img2img_empty_prompt", 114, small(prompt="")),
    img2img(
        "flux_img2img_unicode_prompt", 115,
        small(prompt="Café naïve — schön, 日本語 🎨  ﬁne\tprint ½ it's <|endoftext|> </s> DON'T"),
    ),
    img2img(
        "flux_img2img_batch3", 116,
        base(image="in_128x96", height=80, width=48, num_images_per_prompt=3, num_inference_steps=3),
        "upright, sides that are odd multiples of 16; one draw for the picture's latent, shared by all three",
    ),
    img2img(
        "flux_img2img_generators", [117, 118], small(num_images_per_prompt=2),
        "one generator per image: the picture's latent takes the first, the noise is drawn from each in turn",
    ),
    img2img(
        "flux_img2img_28_steps", 119,
        small(image="in_128x96", height=32, width=48, num_inference_steps=28, strength=0.75),
        "the default number of steps: errors add up",
    ),
    img2img(
        "flux_img2img_wide", 120, base(image="in_128x96", height=32, width=160, num_inference_steps=3),
        "rows and columns of positions cannot be confused",
    ),
    Case(
        "flux_img2img_large", FluxImg2ImgPipeline, "flux-dev-tiny", 125,
        base(image="in_150x101", height=256, width=320, num_inference_steps=3, max_sequence_length=128),
        "320 image tokens and 1280 positions in the VAE's attention: more than one block of any blocked loop",
        large=True,
    ),
    Case(
        "flux_schnell_img2img_1_step", FluxImg2ImgPipeline, "flux-schnell-tiny", 121,
        small(prompt=MOUNTAIN, strength=0.5, num_inference_steps=1, guidance_scale=0.0),
        "a single step begins with pure noise at any strength",
    ),
    Case(
        "flux_txt2img_truecfg", FluxPipeline, "flux-dev-tiny", 122,
        small(image=None, strength=None, true_cfg_scale=3.0, negative_prompt="blurry", num_images_per_prompt=2),
    ),
    Case(
        "flux_kontext_diffsize", FluxKontextPipeline, "flux-kontext-tiny", 123,
        base(
            prompt="make it a pencil drawing", image="in_150x101", strength=None, max_area=6144, _auto_resize=False,
            num_inference_steps=4, guidance_scale=2.5,
        ),
        "the reference picture keeps its own size, rounded down to 144x96",
    ),
    Case(
        "flux_kontext_truecfg", FluxKontextPipeline, "flux-kontext-tiny", 124,
        small(
            prompt="turn the sky blue", strength=None, max_area=4096, _auto_resize=False,
            guidance_scale=2.5, true_cfg_scale=2.0, negative_prompt="blurry",
        ),
    ),
]  # fmt: skip

"""A model folder as something that paints, with the settings that it recommends, by diffusers' pipelines."""

import json

import cv2
import numpy as np
import torch
from diffusers import FluxControlImg2ImgPipeline, FluxControlPipeline, FluxImg2ImgPipeline
from PIL import Image

from folders import own_parts


class Painter:
    """The pipeline with the settings that the model folder recommends."""

    def __init__(self, folder):
        self.settings = json.loads((folder / "pentimento.json").read_text())
        self.pipeline = FluxImg2ImgPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.painted = {}

    def __call__(self, prompt, picture, strength=None, seed=0):
        """Paints, or finds what was painted before: the sheet and the figures show many of the same pictures."""
        key = (prompt, picture.tobytes(), strength, seed)
        if key not in self.painted:
            self.painted[key] = self.paint(prompt, picture, strength, seed)
        return self.painted[key]

    def created(self, prompt, seed=0, side=256):
        """Paints from noise alone."""
        return self(prompt, np.full((side, side, 3), 255, np.uint8), 1.0, seed)

    def paint(self, prompt, picture, strength, seed):
        height, width = picture.shape[:2]
        settings = self.settings
        result = self.pipeline(
            prompt,
            image=Image.fromarray(picture),
            height=height,
            width=width,
            strength=strength or settings["default_strength"],
            num_inference_steps=settings["default_steps"],
            guidance_scale=settings["default_guidance_scale"],
            negative_prompt="",
            true_cfg_scale=settings["default_true_cfg_scale"],
            max_sequence_length=settings["max_sequence_length"],
            generator=torch.Generator().manual_seed(seed),
        )
        return np.asarray(result.images[0])

    def coded(self, picture):
        """The picture, encoded and decoded."""
        vae = self.pipeline.vae
        source = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            result = vae.decode(vae.encode(source).latent_dist.mean).sample.clamp(-1, 1)
        return ((result[0].permute(1, 2, 0).numpy() + 1) * 127.5 + 0.5).astype(np.uint8)


class CannyPainter(Painter):
    """The control variant: its own parts, and the others of the model that it belongs to."""

    def __init__(self, folder, painter):
        self.settings = json.loads((folder / "pentimento.json").read_text())
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        parts = {**{name: getattr(painter.pipeline, name) for name in names}, **own_parts(folder)}
        self.from_noise, self.from_picture = FluxControlPipeline(**parts), FluxControlImg2ImgPipeline(**parts)
        for pipeline in (self.from_noise, self.from_picture):
            pipeline.set_progress_bar_config(disable=True)
        self.painted = {}

    def paint(self, prompt, picture, strength, seed):
        """Without true guidance, which diffusers' control pipelines do not have."""
        height, width = picture.shape[:2]
        start = {} if strength == 1 else {"image": Image.fromarray(picture), "strength": strength}
        result = (self.from_picture if start else self.from_noise)(
            prompt,
            control_image=Image.fromarray(edges(picture)),
            height=height,
            width=width,
            num_inference_steps=self.settings["default_steps"],
            guidance_scale=self.settings["default_guidance_scale"],
            max_sequence_length=self.settings["max_sequence_length"],
            generator=torch.Generator().manual_seed(seed),
            **start,
        )
        return np.asarray(result.images[0])


def edges(picture):
    """The control picture that the server makes."""
    return np.repeat(cv2.Canny(picture, 50, 200)[..., None], 3, 2)

"""Records to which size the reference brings Kontext's picture, with its resizing and without."""

import json
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

SIZES = [
    (64, 64), (100, 70), (640, 480), (1023, 1025), (333, 1000), (1200, 800), (1024, 1024),
    (1025, 1024), (1536, 1024), (1536, 1536), (1400, 1300), (1920, 1080), (1080, 1920), (3000, 2000), (4096, 900),
    (700, 4000), (1504, 1504), (1311, 1201), (1537, 1213), (2048, 1537),
    *((width * 2 + 5, height * 2 + 9) for width, height in PREFERRED_KONTEXT_RESOLUTIONS),
]  # fmt: skip


class Resized(Exception):
    """Ends a run at the point that is of interest."""


def record_kontext_sizes(path: Path, goldens: Path) -> None:
    pipeline = FluxKontextPipeline.from_pretrained(goldens / "models" / "flux-kontext-tiny", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def resize(_image, height, width):
        raise Resized(width, height)

    pipeline.image_processor.resize = resize
    rows = [
        {"picture": size, "own": resized(pipeline, size, False), "trained": resized(pipeline, size, True)}
        for size in SIZES
    ]
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def resized(pipeline: FluxKontextPipeline, size: tuple[int, int], auto_resize: bool) -> tuple[int, int]:
    try:
        pipeline(
            image=Image.new("RGB", size), prompt="a", num_inference_steps=1, max_sequence_length=16,
            _auto_resize=auto_resize,
        )  # fmt: skip
    except Resized as ended:
        return ended.args
    raise RuntimeError("the reference did not resize its picture")

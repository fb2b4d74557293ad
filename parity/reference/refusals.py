"""Records which arguments the reference refuses, and with what words."""

import json
from pathlib import Path

import torch
from diffusers import FluxImg2ImgPipeline

from .cases import small
from .recorder import Case, arguments, generators

ARGUMENTS = {
    "strength_negative": {"strength": -0.1},
    "strength_above_1": {"strength": 1.1},
    "strength_0": {"strength": 0.0},
    "strength_tiny": {"strength": 1e-18},
    "steps_0": {"num_inference_steps": 0},
    "seq_513": {"max_sequence_length": 513},
    "seq_512": {"max_sequence_length": 512, "num_inference_steps": 1},
    "no_prompt": {"prompt": None},
    "size_below_16": {"height": 8, "num_inference_steps": 1},
}


def record_refusals(path: Path, goldens: Path) -> None:
    """`error` is null where the reference paints after all."""
    pipeline = FluxImg2ImgPipeline.from_pretrained(goldens / "models" / "flux-dev-tiny", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    document = {
        name: {"changes": changes, "error": attempt(pipeline, changes, goldens)} for name, changes in ARGUMENTS.items()
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def attempt(pipeline: FluxImg2ImgPipeline, changes: dict, goldens: Path) -> str | None:
    case = Case("refusal", FluxImg2ImgPipeline, "flux-dev-tiny", 1, small(**changes))
    try:
        pipeline(**arguments(case, goldens), generator=generators(case.seed))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None

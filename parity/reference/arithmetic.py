"""Records what needs no model: random numbers and noise schedules."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_img2img import FluxImg2ImgPipeline, calculate_shift
from safetensors.torch import save_file

SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 42, 2**63 + 5]
SIZES = [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 48, 100, 1000, 1535, 1536, 6144]
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
# Draws of one generator, one after the other: odd counts leave half a pair behind, tails consume fresh words.
SEQUENCES = {
    "small": ["f32.1", "f32.1", "f32.3", "f32.15", "f32.2"],
    "spare_survives": ["f32.3", "f32.100", "f32.2", "f32.16", "f32.1"],
    "tails": ["f32.17", "f32.31", "f32.33", "f32.16"],
    "dtypes": ["f32.5", "bf16.17", "f16.33", "f64.19", "f32.3", "f64.4", "bf16.7", "f16.5", "f32.18"],
    "pictures": ["f32.1536", "f32.1536", "f32.3072"],
}


def record_noise(path: Path) -> None:
    """`one.<dtype>.seed<s>.n<n>` is a fresh generator's first draw; `sequence.<name>.<i>.<dtype>.<n>` its i-th."""
    tensors = {}
    for seed in SEEDS:
        for n in SIZES:
            tensors[f"one.f32.seed{seed}.n{n}"] = draw(torch.Generator().manual_seed(as_signed(seed)), "f32", n)
    for dtype in ("f64", "bf16", "f16"):
        for n in SIZES:
            tensors[f"one.{dtype}.seed42.n{n}"] = draw(torch.Generator().manual_seed(42), dtype, n)
    for name, draws in SEQUENCES.items():
        generator = torch.Generator().manual_seed(7)
        for idx, spelled in enumerate(draws):
            dtype, n = spelled.split(".")
            tensors[f"sequence.{name}.{idx}.{dtype}.{n}"] = draw(generator, dtype, int(n))
    save_file(tensors, path)
    path.chmod(0o644)


def draw(generator: torch.Generator, dtype: str, n: int) -> torch.Tensor:
    return torch.randn(n, generator=generator, dtype=DTYPES[dtype])


def as_signed(seed: int) -> int:
    """torch takes 64 bits of either sign; `2**63 + 5` reaches it as it would from an unsigned word."""
    return seed - 2**64 if seed >= 2**63 else seed


SCHEDULERS = {
    "dev": {"shift": 3.0, "use_dynamic_shifting": True},
    "schnell": {"shift": 1.0, "use_dynamic_shifting": False},
    "static": {"shift": 3.0, "use_dynamic_shifting": False},
    "static_odd": {"shift": 1.7182818, "use_dynamic_shifting": False},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "terminal": {"use_dynamic_shifting": True, "shift_terminal": 0.02},
    "terminal_static": {"shift": 2.5, "shift_terminal": 0.1},
    "terminal_zero": {"shift": 2.5, "shift_terminal": 0.0},
    "other_slope": {
        "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05,
        "base_image_seq_len": 512, "max_image_seq_len": 8192,
    },
    "other_training": {"use_dynamic_shifting": True, "num_train_timesteps": 777},
}  # fmt: skip
N_STEPS = [1, 2, 3, 4, 5, 7, 8, 12, 20, 28, 30, 50]
SEQ_LENS = [1, 24, 256, 1024, 1750, 4096, 9216]
STRENGTHS = [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 1 / 3, 0.35, 0.5, 0.55, 0.58, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 1.0]
LATENT = [1.0, -2.0, 0.3, 0.017]
NOISE = [0.3, 0.7, -1.1, 2.9]
# Steps of each schedule whose two formulas are recorded on LATENT and NOISE.
N_STEPS_APPLIED = 4


def record_schedules(path: Path) -> None:
    """Every schedule as the image-to-image pipeline of FLUX sets it up, begun at every strength."""
    schedules = [
        schedule(name, changes, n_steps, seq_len)
        for name, changes in SCHEDULERS.items()
        for n_steps in N_STEPS
        for seq_len in (SEQ_LENS if changes.get("use_dynamic_shifting") else SEQ_LENS[:1])
        # One step ends where it starts, so there is nothing to stretch: the reference divides zero by zero.
        if not (changes.get("shift_terminal") and n_steps == 1)
    ]
    document = {"configs": SCHEDULERS, "strengths": STRENGTHS, "latent": LATENT, "noise": NOISE, "schedules": schedules}
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")


def schedule(name: str, changes: dict, n_steps: int, seq_len: int) -> dict:
    scheduler = FlowMatchEulerDiscreteScheduler(**changes)
    config = scheduler.config
    mu = calculate_shift(
        seq_len, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n_steps, n_steps), mu=mu)
    pipeline = FluxImg2ImgPipeline.__new__(FluxImg2ImgPipeline)
    object.__setattr__(pipeline, "scheduler", scheduler)
    first_steps = [n_steps - FluxImg2ImgPipeline.get_timesteps(pipeline, n_steps, s, "cpu")[1] for s in STRENGTHS]
    latent, noise = torch.tensor([LATENT]), torch.tensor([NOISE])
    mixed, stepped = [], []
    for step in range(min(n_steps, N_STEPS_APPLIED)):
        scheduler.set_begin_index(step)
        scheduler._step_index = None
        mixed.append(shortest(scheduler.scale_noise(latent, scheduler.timesteps[step : step + 1], noise)[0]))
        stepped.append(shortest(scheduler.step(noise, scheduler.timesteps[step], latent, return_dict=False)[0][0]))
    return {
        "config": name,
        "n_steps": n_steps,
        "image_seq_len": seq_len,
        "sigmas": shortest(scheduler.sigmas),
        "timesteps": shortest(scheduler.timesteps),
        "first_steps": first_steps,
        "mixed": mixed,
        "stepped": stepped,
    }


def shortest(values: torch.Tensor) -> list[float]:
    """float32 values in the fewest digits that give them back, also by way of float64."""
    short = [float(str(value)) for value in values.numpy()]
    assert np.array_equal(np.array(short).astype(np.float32), values.numpy())
    return short

"""Records the noise schedules of SDXL, and what their steps make of plain numbers."""

import json
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline
from diffusers.schedulers import scheduling_euler_ancestral_discrete

from .arithmetic import LATENT, NOISE, STRENGTHS, shortest

# How SDXL was trained.
SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {**SDXL, "timestep_spacing": "leading", "steps_offset": 1}
TRAILING = {**SDXL, "timestep_spacing": "trailing", "steps_offset": 1}
EULER, ANCESTRAL, MULTISTEP = EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler
VELOCITY = {"prediction_type": "v_prediction"}
CONFIGS = {
    "euler_leading": (EULER, LEADING),
    "euler_trailing": (EULER, TRAILING),
    "euler_linspace": (EULER, SDXL),
    "euler_defaults": (EULER, {}),
    "euler_velocity": (EULER, {**LEADING, **VELOCITY}),
    "euler_velocity_zero_snr": (EULER, {**TRAILING, **VELOCITY, "rescale_betas_zero_snr": True}),
    "euler_karras": (EULER, {**LEADING, "use_karras_sigmas": True}),
    "euler_karras_velocity": (EULER, {**TRAILING, **VELOCITY, "use_karras_sigmas": True}),
    "euler_least": (EULER, {**LEADING, "final_sigmas_type": "sigma_min"}),
    "euler_other_training": (EULER, {**LEADING, "num_train_timesteps": 777, "steps_offset": 0}),
    "ancestral_trailing": (ANCESTRAL, TRAILING),
    "ancestral_leading": (ANCESTRAL, LEADING),
    "ancestral_linspace": (ANCESTRAL, SDXL),
    "ancestral_velocity": (ANCESTRAL, {**LEADING, **VELOCITY}),
    "multistep_karras": (MULTISTEP, {**LEADING, "use_karras_sigmas": True}),
    "multistep_karras_velocity": (MULTISTEP, {**TRAILING, **VELOCITY, "use_karras_sigmas": True}),
    "multistep_karras_euler_at_final": (
        MULTISTEP,
        {**LEADING, "use_karras_sigmas": True, "euler_at_final": True, "final_sigmas_type": "sigma_min"},
    ),
    "multistep_karras_least": (
        MULTISTEP,
        {**LEADING, "use_karras_sigmas": True, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
    ),
    "multistep_leading": (MULTISTEP, LEADING),
    "multistep_trailing": (MULTISTEP, TRAILING),
    "multistep_linspace": (MULTISTEP, SDXL),
}
# 61 trailing steps are 62: the reference counts them in floating point.
N_STEPS = [1, 2, 3, 4, 5, 6, 7, 9, 12, 14, 15, 16, 20, 28, 30, 37, 50, 61]
ODD_STRENGTHS = [*STRENGTHS, 0.02, 0.29, 0.57, 0.65]
# What the model answers, step after step, over and over.
OUTPUTS = [[0.5, -1.0, 0.25, 2.0], [-0.75, 0.1, 1.5, -0.3], [1.1, 0.9, -0.6, 0.05]]
# Of the whole run, where a schedule is longer than twice this only the first and last so many latents are kept.
N_STEPS_KEPT = 4


def record_schedules(path: Path) -> None:
    """Every schedule whole, where each strength begins, and runs from two of its steps."""
    schedules = [schedule(name, *CONFIGS[name], n_steps) for name in CONFIGS for n_steps in N_STEPS]
    configs = {name: {"_class_name": kind.__name__, **changes} for name, (kind, changes) in CONFIGS.items()}
    document = {
        "configs": configs,
        "strengths": ODD_STRENGTHS,
        "latent": LATENT,
        "noise": NOISE,
        "outputs": OUTPUTS,
        "n_steps_kept": N_STEPS_KEPT,
        "schedules": schedules,
    }
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")


def schedule(name: str, kind: type, changes: dict, n_steps: int) -> dict:
    scheduler = kind(**changes)
    scheduler.set_timesteps(n_steps)
    n_timesteps = len(scheduler.timesteps)
    first_steps = [first_step(scheduler, n_steps, strength) for strength in ODD_STRENGTHS]
    return {
        "config": name,
        "n_steps": n_steps,
        "sigmas": shortest(scheduler.sigmas),
        "timesteps": shortest(scheduler.timesteps.float()),
        "noise_scale": float(scheduler.init_noise_sigma),
        "first_steps": first_steps,
        "runs": [run(kind, changes, n_steps, begin) for begin in sorted({0, n_timesteps // 3})],
    }


def first_step(scheduler: object, n_steps: int, strength: float) -> int:
    pipeline = StableDiffusionXLImg2ImgPipeline.__new__(StableDiffusionXLImg2ImgPipeline)
    object.__setattr__(pipeline, "scheduler", scheduler)
    return n_steps - StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, n_steps, strength, "cpu")[1]


def run(kind: type, changes: dict, n_steps: int, begin: int) -> dict:
    scheduler = kind(**changes)
    scheduler.set_timesteps(n_steps)
    scheduler.set_begin_index(begin)
    noise = torch.tensor([NOISE])
    # Fresh noise is the same in every step, so that the steps can be told from it.
    scheduling_euler_ancestral_discrete.randn_tensor = lambda *_args, **_kwargs: noise
    timesteps = scheduler.timesteps[begin:]
    latent = scheduler.add_noise(torch.tensor([LATENT]), noise, timesteps[:1])
    start, latents = latent, []
    for idx, timestep in enumerate(timesteps):
        seen = scheduler.scale_model_input(latent, timestep)
        # The answer depends on what is seen, as a model's does.
        output = torch.tensor([OUTPUTS[idx % len(OUTPUTS)]]) + 0.1 * seen
        latent = scheduler.step(output, timestep, latent, return_dict=False)[0]
        latents.append(shortest(latent[0]))
    if len(latents) > 2 * N_STEPS_KEPT:
        latents = latents[:N_STEPS_KEPT] + latents[-N_STEPS_KEPT:]
    return {"begin": begin, "start": shortest(start[0]), "latents": latents}

"""Runs a pipeline of the reference and writes down every tensor on the way."""

import functools
import json
import platform
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

THREADS = 2
IMAGE_ARGUMENTS = ("image", "control_image")


@dataclass(frozen=True)
class Case:
    """One run. `kwargs` go to the pipeline as they are, except that pictures are named, not held."""

    name: str
    pipeline: type[DiffusionPipeline]
    model: str
    seed: int | list[int]
    kwargs: dict
    note: str = ""
    blocks: bool = False
    """Whether the output of every transformer block of the first call is kept, too."""
    large: bool = False
    """Whether tensors as large as the picture are left out; `image.png` remains."""
    scheduler: tuple[type, dict] | None = None
    """Made from the configuration of the model's own, with changes."""
    prior: Callable | None = None
    """Makes the pipeline's arguments from those of the case, by running another pipeline before it."""


@dataclass
class Recording:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    images: np.ndarray | None = None

    def keep(self, name: str, value: torch.Tensor) -> None:
        if name in self.tensors:
            raise RuntimeError(f"{name} was recorded twice")
        self.tensors[name] = value.detach().clone().contiguous()

    def count(self, prefix: str) -> int:
        """How many tensors or groups of tensors named `<prefix>_<n>` there are."""
        return len({name.split(".")[0] for name in self.tensors if name.split(".")[0].startswith(f"{prefix}_")})


def record(case: Case, goldens: Path) -> None:
    """Writes `cases/<name>/{case.json,tensors.safetensors,image.png}`, after measuring how far rounding moves it."""
    recording = run(case, goldens)
    again = run(case, goldens)
    alone = run(case, goldens, threads=1)
    exact = run(case, goldens, dtype=torch.float64, replay=recording)

    folder = goldens / "cases" / case.name
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in recording.tensors.items() if not (case.large and is_picture(name))}
    save_file(kept, folder / "tensors.safetensors")
    (folder / "tensors.safetensors").chmod(0o644)
    Image.fromarray(levels(recording.images[0])).save(folder / "image.png", optimize=True)
    image = recording.images[0]
    document = {
        "case": case.name,
        "pipeline": case.pipeline.__name__,
        "model": case.model,
        "seed": case.seed,
        "dtype": "torch.float32",
        "kwargs": case.kwargs,
        **({} if case.scheduler is None else {"scheduler": case.scheduler[0].__name__, **case.scheduler[1]}),
        "note": case.note,
        "versions": versions(),
        "bitwise_repeatable": difference(recording, again) == 0.0,
        "vs_1_thread": image_difference(recording, alone),
        "vs_float64": image_difference(recording, exact),
        "image_shape": list(image.shape),
        "image_mean": float(image.mean()),
        "image_std": float(image.std()),
        "clipped_fraction": float(((image <= 0.0) | (image >= 1.0)).mean()),
        "f32_noise_floor": noise_floor(recording, exact),
        "tensors": {name: [dtype_name(value), list(value.shape)] for name, value in kept.items()},
    }
    (folder / "case.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def run(
    case: Case,
    goldens: Path,
    threads: int = THREADS,
    dtype: torch.dtype = torch.float32,
    replay: Recording | None = None,
) -> Recording:
    """One run from fresh weights. With `replay`, the random numbers of that recording are drawn again, as `dtype`."""
    torch.set_num_threads(threads)
    pipeline = case.pipeline.from_pretrained(goldens / "models" / case.model, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    if case.scheduler is not None:
        kind, changes = case.scheduler
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **changes)
    # Otherwise SDXL's autoencoder goes back to float32 on its own, whatever it was loaded as.
    pipeline.vae.register_to_config(force_upcast=False)
    recording = Recording()
    kwargs = arguments(case, goldens)
    if case.prior is not None:
        kwargs = case.prior(case, kwargs, pipeline, goldens, recording)
    with observed(pipeline, recording, case.blocks), recorded_draws(recording, replay):
        images = pipeline(**kwargs, generator=generators(case.seed), output_type="np").images
    recording.images = images.astype(np.float32)
    keep_schedule(pipeline, recording)
    recording.keep("image_float_hwc", torch.from_numpy(recording.images[0]))
    return recording


def arguments(case: Case, goldens: Path) -> dict:
    kwargs = dict(case.kwargs)
    for key in IMAGE_ARGUMENTS:
        if key in kwargs:
            kwargs[key] = Image.open(goldens / "inputs" / f"{kwargs[key]}.png").convert("RGB")
    return kwargs


def generators(seed: int | list[int]) -> torch.Generator | list[torch.Generator]:
    if isinstance(seed, list):
        return [generators(one) for one in seed]
    return torch.Generator().manual_seed(seed)


@contextmanager
def recorded_draws(recording: Recording, replay: Recording | None) -> Iterator[None]:
    """Keeps every draw as `rng_draw_<n>`; torch itself is wrapped, so none is missed."""
    draw = torch.randn

    def randn(*args, **kwargs):
        name = f"rng_draw_{recording.count('rng_draw')}"
        value = draw(*args, **kwargs) if replay is None else replay.tensors[name].to(kwargs["dtype"])
        recording.keep(name, value)
        return value

    torch.randn = randn
    try:
        yield
    finally:
        torch.randn = draw


@contextmanager
def observed(pipeline: DiffusionPipeline, recording: Recording, blocks: bool) -> Iterator[None]:
    """Listens to the stages of a pipeline. The pipeline is thrown away after its run, so nothing is put back."""
    wrap(pipeline, "encode_prompt", lambda _, result: keep_prompt(recording, result))
    wrap(pipeline.vae, "encode", lambda args, result: keep_encoding(recording, args[0], result))
    wrap(pipeline.vae, "decode", lambda args, result: keep_decoding(recording, args[0], result))
    wrap(pipeline.scheduler, "step", lambda _, result: keep_step(recording, result))
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    handles = [denoiser.register_forward_pre_hook(model_input_hook(recording), with_kwargs=True)]
    if blocks:
        handles += [module.register_forward_hook(block_hook(recording, name)) for name, module in stages(denoiser)]
    handles.append(denoiser.register_forward_hook(model_output_hook(recording)))
    yield
    for handle in handles:
        handle.remove()


def wrap(owner: object, name: str, tell: Callable[[tuple, object], None]) -> None:
    inner = getattr(owner, name)

    # SDXL looks at the signature of its scheduler's step before it hands over the generator.
    @functools.wraps(inner)
    def outer(*args, **kwargs):
        result = inner(*args, **kwargs)
        tell(args, result)
        return result

    # Modules of torch refuse to hold a plain attribute of a method's name otherwise.
    object.__setattr__(owner, name, outer)


def keep_prompt(recording: Recording, result: tuple) -> None:
    stage = f"encode_prompt_{recording.count('encode_prompt')}"
    of_flux = ("prompt_embeds", "pooled_prompt_embeds", "text_ids")
    of_sdxl = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    for part, value in zip(of_flux if len(result) == len(of_flux) else of_sdxl, result):
        # Without guidance SDXL has nothing to avoid.
        if value is not None:
            recording.keep(f"{stage}.{part}", value)


def keep_encoding(recording: Recording, picture: torch.Tensor, result: object) -> None:
    stage = f"vae_encode_{recording.count('vae_encode')}"
    recording.keep(f"{stage}.input", picture)
    recording.keep(f"{stage}.mean", result.latent_dist.mean)
    recording.keep(f"{stage}.logvar", result.latent_dist.logvar)


def keep_decoding(recording: Recording, latents: torch.Tensor, result: tuple) -> None:
    recording.keep("vae_decode.input", latents)
    recording.keep("vae_decode.output", result[0])


def keep_step(recording: Recording, result: tuple) -> None:
    recording.keep(f"latents_after_step_{recording.count('latents_after_step')}", result[0])


def model_input_hook(recording: Recording) -> Callable:
    def hook(_module, args, kwargs):
        call = recording.count("model_call")
        # A UNet is given its first two by their place, and what pools the text beside them.
        given = dict(zip(("sample", "timestep"), args)) | kwargs | (kwargs.get("added_cond_kwargs") or {})
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        recording.keep(f"model_call_{call}.timestep", tensors.pop("timestep"))
        # The inputs other than time and latents stay the same, and the latents are those after the step before.
        if call == 0:
            for name, value in tensors.items():
                recording.keep(f"model_call_0.{name}", value)

    return hook


def model_output_hook(recording: Recording) -> Callable:
    def hook(_module, _args, output):
        recording.keep(f"model_call_{recording.count('model_call') - 1}.output", output[0])

    return hook


def stages(denoiser: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    names = ("x_embedder", "time_text_embed", "context_embedder", "conv_in", "time_embedding", "add_embedding")
    groups = ("transformer_blocks", "single_transformer_blocks", "down_blocks", "up_blocks")
    for name in (*names, "mid_block", "norm_out"):
        if hasattr(denoiser, name):
            yield name, getattr(denoiser, name)
    for group in groups:
        for idx, block in enumerate(getattr(denoiser, group, ())):
            yield f"{group}.{idx}", block


def block_hook(recording: Recording, name: str) -> Callable:
    def hook(_module, _args, output):
        if recording.count("model_call") > 1:
            return
        if isinstance(output, tuple) and name.startswith("down_blocks"):
            recording.keep(f"blocks.{name}", output[0])
        elif isinstance(output, tuple):
            for stream, value in zip(("txt", "img"), output):
                recording.keep(f"blocks.{name}.{stream}", value)
        else:
            recording.keep(f"blocks.{name}", output)

    return hook


def keep_schedule(pipeline: DiffusionPipeline, recording: Recording) -> None:
    scheduler = pipeline.scheduler
    recording.keep("scheduler.sigmas", scheduler.sigmas)
    recording.keep("scheduler.timesteps", scheduler.timesteps)
    recording.keep("scheduler.begin_index", torch.tensor([-1 if scheduler.begin_index is None else scheduler.begin_index]))


def is_picture(name: str) -> bool:
    return name in ("vae_decode.output", "image_float_hwc") or name.startswith("vae_encode") and name.endswith("input")


def levels(image: np.ndarray) -> np.ndarray:
    """0 to 1 as 8-bit levels, halves to the even one, as the reference saves a picture."""
    return (image * 255).round().astype("uint8")


def difference(one: Recording, other: Recording) -> float:
    return max(largest_gap(value, other.tensors[name]) for name, value in one.tensors.items())


def largest_gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def image_difference(one: Recording, other: Recording) -> dict:
    gap = np.abs(one.images.astype(np.float64) - other.images.astype(np.float64))
    differing = levels(one.images) != levels(other.images)
    return {"max_abs": float(gap.max()), "mean_abs": float(gap.mean()), "u8_differing": int(differing.sum())}


def noise_floor(recording: Recording, exact: Recording) -> dict[str, float]:
    """How far float32 is from float64, tensor by tensor: nobody can be asked to agree more closely."""
    computed = ("encode_prompt", "vae_encode", "model_call", "latents_after", "vae_decode.output", "blocks", "redux")
    names = [name for name in recording.tensors if name.startswith(computed) and not name.endswith("_ids")]
    return {name: largest_gap(recording.tensors[name], exact.tensors[name]) for name in names}


def dtype_name(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    return {
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

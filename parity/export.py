#!/usr/bin/env python3
"""Records the reference implementation's answers, which the Rust code is tested against. See README.md."""

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path

# Everything needed lies in this folder; nothing may be fetched.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors.torch import load_file

from reference import arithmetic, canny, cases, control, depth, diffusion, kontext, layers, models, recorder, redux
from reference import refusals, sdxl, tokens, towers

CASES = cases.CASES + control.CASES + redux.CASES + sdxl.CASES
HERE = Path(__file__).resolve().parent
# A recorded tensor may differ this much on another processor, whose libraries add in another order.
CHECK_TOLERANCE = 1e-4
VAE_TOLERANCE = 3e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    whats = ["noise", "schedules", "layers", "siglip", "tokens", "refusals", "canny", "depth", "kontext", "formats"]
    whats += ["models", "cases", "check"]
    parser.add_argument("what", choices=whats)
    parser.add_argument("names", nargs="*", help="of models or cases; all when left out")
    parser.add_argument("--goldens", type=Path, default=HERE / "goldens", help="the folder read and written")
    options = parser.parse_args()
    require_pinned_versions()
    torch.set_num_threads(recorder.THREADS)
    goldens, names = options.goldens, options.names
    match options.what:
        case "noise":
            arithmetic.record_noise(goldens / "noise.safetensors")
        case "schedules":
            arithmetic.record_schedules(goldens / "schedules.json")
            diffusion.record_schedules(goldens / "diffusion_schedules.json")
        case "layers":
            layers.record_layers(goldens / "layers.safetensors")
            towers.record_towers(goldens / "towers.safetensors")
        case "siglip":
            redux.record_siglip_layers(goldens / "siglip_layers.safetensors")
        case "tokens":
            tokens.record_tokens(goldens / "tokenizers" / "tokens.json", goldens)
        case "refusals":
            refusals.record_refusals(goldens / "refusals.json", goldens)
        case "canny":
            canny.record_canny(goldens / "canny")
        case "depth":
            depth.record_depth(goldens)
        case "kontext":
            kontext.record_kontext_sizes(goldens / "kontext_sizes.json", goldens)
        case "formats":
            require_pinned_versions("requirements-formats.txt")
            # Its packages are asked for by no other kind of answer.
            from reference import formats

            formats.record_formats(goldens / "formats", goldens)
        case "models":
            for name in names or [*models.MODELS, redux.MODEL, *sdxl.MODELS, *depth.MODELS]:
                build(name, goldens)
        case "cases":
            for case in chosen(names):
                recorder.record(case, goldens)
                print(f"recorded {case.name}")
        case "check":
            return 0 if all([check(case, goldens) for case in chosen(names)]) else 1
    return 0


def build(name: str, goldens: Path) -> None:
    if name in depth.MODELS:
        depth.build(name, goldens / "models" / name)
        print(f"built {name}; `depth` must be recorded again")
        return
    # The T5 tokenizer is trained, not computed, so each model takes over the one that is there.
    t5_tokenizer = HERE / "goldens" / "models" / "flux-dev-tiny" / "tokenizer_2"
    if name == redux.MODEL:
        redux.build(goldens / "models" / name)
    elif name in sdxl.MODELS:
        sdxl.build(name, goldens / "tokenizers" / "clip_full", goldens / "models" / name)
    else:
        models.build(name, goldens / "tokenizers", t5_tokenizer, goldens / "models" / name)
    print(f"built {name}; every case recorded from the weights it replaces must be recorded again")


def check(case: recorder.Case, goldens: Path) -> bool:
    """Whether this machine's reference agrees with what is recorded; tells the largest difference."""
    recorded = load_file(goldens / "cases" / case.name / "tensors.safetensors")
    fresh = recorder.run(case, goldens).tensors
    if case.large:
        fresh = {name: value for name, value in fresh.items() if not recorder.is_picture(name)}
    if recorded.keys() != fresh.keys():
        print(f"{case.name}: other tensors: {sorted(recorded.keys() ^ fresh.keys())}")
        return False
    gaps = {name: recorder.largest_gap(value, fresh[name]) for name, value in recorded.items()}
    within = all(gap <= tolerance(name) for name, gap in gaps.items())
    worst = max(gaps, key=gaps.get)
    distance = f"at most {gaps[worst]:.1e} in {worst}" if gaps[worst] else "bit for bit"
    print(f"{case.name}: {'agrees' if within else 'DIFFERS'}, {distance}")
    return within


def tolerance(name: str) -> float:
    if name == "scheduler.sigmas":
        # SDXL's take a square root, in which processors differ by the last bit.
        return 2e-6
    if name.startswith(("rng_draw", "scheduler")):
        return 0.0
    on_the_vaes_scale = name.startswith("vae_encode") or name == "vae_decode.input"
    return VAE_TOLERANCE if on_the_vaes_scale else CHECK_TOLERANCE


def chosen(names: list[str]) -> list[recorder.Case]:
    known = {case.name: case for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names] or CASES


def require_pinned_versions(file: str = "requirements.txt") -> None:
    """Another version is another reference."""
    for line in (HERE / file).read_text().splitlines():
        name, _, pinned = line.partition("==")
        # What follows a plus tells for which accelerator a package was built.
        installed = version(name).partition("+")[0]
        if pinned and installed != pinned:
            sys.exit(f"{name} is {installed}, and the goldens are of {pinned}: pip install -r {file}")


if __name__ == "__main__":
    sys.exit(main())

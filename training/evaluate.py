"""Measures a trained model folder and paints its contact sheet.

    python evaluate.py [--cache ../target/nano] [--model ../models/pentimento-nano] [--quick]

Prints, and writes to `<cache>/figures.json`: the autoencoder's PSNR on held-out pictures; how often a small style
probe, trained on filtered training photographs only, recognizes the prompted style in repainted held-out photographs;
and whether the distance to the input grows with `strength`. `--quick` paints the sheet only.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxImg2ImgPipeline
from PIL import Image, ImageDraw

import prepare
import sources
import styles

HERE = Path(__file__).resolve().parent
SHEET_PROMPTS = [
    "pencil sketch",
    "watercolour painting",
    "oil painting",
    "comic",
    "mosaic",
    "pixel art",
    "pop art",
    "vintage poster",
    "stained glass",
    "neon lights",
    "blueprint",
    "at sunset",
    "at night",
    "in winter",
    "sepia photograph",
    "charcoal drawing",
    "in autumn",
    "flat icon of a cat on a blue background",
]
SHEET_STRENGTHS = [0.3, 0.45, 0.6, 0.75, 0.9, 1.0]
DRAWING_PROMPTS = ["3d render", "flat icon", "black icon", "pencil sketch", "watercolour painting", "pixel art"]
STRENGTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/pentimento-nano")
    parser.add_argument("--sheet", type=Path, default=None, help="default: <model>/contact-sheet.png")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    painter = Painter(arguments.model)
    photographs = held_out_photographs(arguments.cache)
    drawings = held_out_drawings(arguments.cache)
    contact_sheet(painter, photographs, drawings).quantize(192, dither=Image.Dither.NONE).save(
        arguments.sheet or arguments.model / "contact-sheet.png", optimize=True
    )
    if arguments.quick:
        return
    figures = {
        "autoencoder_psnr_db": {"photographs": psnr(painter, photographs), "drawings": psnr(painter, drawings)},
        **style_agreement(painter, photographs, arguments.cache),
        **strength_growth(painter, photographs + drawings[::5]),
    }
    (arguments.cache / "figures.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))


class Painter:
    """The pipeline with the settings that the model folder recommends."""

    def __init__(self, folder):
        self.settings = json.loads((folder / "pentimento.json").read_text())
        self.pipeline = FluxImg2ImgPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)

    def __call__(self, prompt, picture, strength=None, seed=0):
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


def held_out_photographs(cache):
    packages = {package.name: sources.fetch(package, cache / "sources") for package in sources.PACKAGES}
    pictures = []
    for photograph, _ in prepare.load_photographs(packages)[1]:
        height, width = photograph.shape[:2]
        scale = (256 * 256 / (height * width)) ** 0.5
        size = [int(side * scale / 16 + 0.5) * 16 for side in (width, height)]
        pictures.append(np.asarray(Image.fromarray(photograph).resize(size, Image.LANCZOS)))
    return pictures


def held_out_drawings(cache):
    """One drawing a held-out subject, in a different set from one subject to the next."""
    records = json.loads((cache / "pictures/held-out-drawings.json").read_text())
    pictures = np.load(cache / "pictures/held-out-drawings.npy", mmap_mode="r")
    members = {}
    for index, record in enumerate(records):
        if record["style"] in sources.DRAWING_SETS:
            members.setdefault(record["group"], []).append(index)
    return [np.asarray(pictures[indices[group % len(indices)]]) for group, indices in members.items()]


def contact_sheet(painter, photographs, drawings):
    """Rows of an input and what was painted from it: styles on photographs, growing strength, styles on drawings."""
    cat = photographs[1]
    rows = [styled(painter, photograph, SHEET_PROMPTS[:6]) for photograph in photographs]
    rows += [styled(painter, cat, SHEET_PROMPTS[6:12]), styled(painter, photographs[0], SHEET_PROMPTS[12:])]
    for prompt in ("watercolour painting", "pop art"):
        painted = [(painter(prompt, cat, strength), f"{prompt} {strength}") for strength in SHEET_STRENGTHS]
        rows.append([(cat, "input"), *painted])
    rows += [styled(painter, drawing, DRAWING_PROMPTS) for drawing in drawings[3:40:12]]
    return laid_out(rows)


def styled(painter, picture, prompts):
    return [(picture, "input"), *((painter(prompt, picture), prompt) for prompt in prompts)]


def laid_out(rows, width=192, label_height=14):
    cells = [[(shrunk(picture, width - 4), label) for picture, label in row] for row in rows]
    heights = [label_height + 4 + max(image.height for image, _ in row) for row in cells]
    sheet = Image.new("RGB", (width * max(map(len, cells)), sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for row, height in zip(cells, heights, strict=True):
        for column, (image, label) in enumerate(row):
            draw.text((column * width, top), label[:32], fill="black")
            sheet.paste(image, (column * width, top + label_height))
        top += height
    return sheet


def shrunk(picture, side):
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.LANCZOS)
    return image


def psnr(painter, pictures):
    """The mean PSNR in dB of encoding and decoding, pixels in 0..1."""
    vae, values = painter.pipeline.vae, []
    for picture in pictures:
        source = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        result = vae.decode(vae.encode(source).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * np.log10(4 / float(((result - source) ** 2).mean())))
    return round(float(np.mean(values)), 2)


# The style probe -----------------------------------------------------------------------------------------------------


def style_agreement(painter, photographs, cache):
    """The share of repainted held-out photographs in which the probe sees the prompted style, and the probe's own."""
    names = list(styles.WORDINGS)
    probe = train_probe(names, cache)
    rng = np.random.default_rng(7)
    real = [
        (styles.apply(name, photograph, rng), name) for photograph in photographs for name in names for _ in range(3)
    ]
    begun, painted = time.monotonic(), []
    for photograph in photographs:
        painted += [(painter(styles.WORDINGS[name][0], photograph), name) for name in names if name != "photo"]
    seconds = (time.monotonic() - begun) / len(painted)
    untouched = [(photograph, name) for photograph in photographs for name in names if name != "photo"]
    right = {name: 0 for name in names}
    for (_, name), guess in zip(painted, probe([picture for picture, _ in painted])):
        right[name] += guess == name
    return {
        "probe_on_real_filtered_photographs": agreement(probe, real),
        "style_agreement": agreement(probe, painted),
        "style_agreement_of_the_untouched_input": agreement(probe, untouched),
        "styles_never_recognized": [name for name in names if name != "photo" and right[name] == 0],
        "seconds_a_picture": round(seconds, 2),
    }


def agreement(probe, labelled):
    guesses = probe([picture for picture, _ in labelled])
    return round(float(np.mean([guess == name for guess, (_, name) in zip(guesses, labelled)])), 3)


def train_probe(names, cache):
    """A small network over color and gradient statistics, trained on the filtered photographs of the training set."""
    inputs, labels = [], []
    for bucket in ("photos-256x256", "photos-208x304", "photos-304x208"):
        pictures = np.load(cache / f"pictures/{bucket}.npy", mmap_mode="r")
        for index, record in enumerate(json.loads((cache / f"pictures/{bucket}.json").read_text())):
            if record["style"] != "photo" or index % 3 == 0:
                inputs.append(statistics(pictures[index]))
                labels.append(names.index(record["style"]))
    inputs, labels = torch.tensor(np.array(inputs), dtype=torch.float32), torch.tensor(labels)
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-4
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], 128), torch.nn.GELU(), torch.nn.Dropout(0.3), torch.nn.Linear(128, len(names))
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    with torch.enable_grad():
        for _ in range(1500):
            batch = torch.randint(len(labels), (256,))
            loss = torch.nn.functional.cross_entropy(network((inputs[batch] - mean) / deviation), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()

    def probe(pictures):
        values = torch.tensor(np.array([statistics(picture) for picture in pictures]), dtype=torch.float32)
        return [names[index] for index in network((values - mean) / deviation).argmax(1)]

    return probe


def statistics(picture):
    """Color quantiles and covariances, and quantiles of gradients at three scales."""
    source = picture.astype(np.float32) / 255
    opponent = source @ np.float32([[1 / 3, 0.5, 0.25], [1 / 3, -0.5, 0.25], [1 / 3, 0, -0.5]])
    levels = [2, 10, 25, 50, 75, 90, 98]
    values = [np.percentile(opponent.reshape(-1, 3), levels, axis=0).ravel(), np.cov(opponent.reshape(-1, 3).T).ravel()]
    gray = opponent[..., 0]
    for step in (1, 2, 4):
        coarse = gray[::step, ::step]
        across, down = np.abs(np.diff(coarse, axis=1)), np.abs(np.diff(coarse, axis=0))
        values += [np.percentile(across, levels[2:]), np.percentile(down, levels[2:])]
    fold = np.abs(np.diff(gray, axis=1)).mean(0)
    values.append(
        [
            fold[offset::period].mean() / (fold.mean() + 1e-3)
            for period in (8, 12)
            for offset in (period - 1, period // 2)
        ]
    )
    return np.concatenate([np.ravel(value) for value in values])


def strength_growth(painter, pictures):
    """The share of inputs whose distance to the result grows at every step of `STRENGTHS`, and the mean distances."""
    distances = []
    for index, picture in enumerate(pictures):
        prompt = SHEET_PROMPTS[index % 12]
        distances.append(
            [
                float(np.sqrt(((painter(prompt, picture, strength) / 255.0 - picture / 255.0) ** 2).mean()))
                for strength in STRENGTHS
            ]
        )
    grows = [all(a < b for a, b in zip(row, row[1:])) for row in distances]
    overall = [row[-1] > row[0] for row in distances]
    return {
        "distance_grows_at_every_strength": round(float(np.mean(grows)), 3),
        "distance_grows_overall": round(float(np.mean(overall)), 3),
        "distance_by_strength": dict(zip(map(str, STRENGTHS), np.mean(distances, 0).round(3).tolist())),
    }


if __name__ == "__main__":
    main()

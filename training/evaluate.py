"""Measures a trained model folder and paints its contact sheet.

    python evaluate.py [--cache ../target/nano] [--model ../models/pentimento-nano] [--quick] [--bfloat16]

Prints, and writes to `<cache>/figures.json`: the autoencoder's PSNR on held-out pictures; how often a small style
probe, trained on training pictures only, recognizes the prompted style in repainted held-out photographs and drawings,
and in filtered photographs that went through the autoencoder alone, which is the most that it could; how often a
painted subject is found among twenty; whether the distance to the input grows with `strength`; and, if the control
variant lies beside the model, how well it keeps to the edges. `--quick` paints the sheets only; `--bfloat16` multiplies
matrices in bfloat16, faster and nearly the same.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import FluxControlImg2ImgPipeline, FluxControlPipeline, FluxImg2ImgPipeline, FluxTransformer2DModel
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
# Among how many a subject has to be found.
N_SUBJECTS = 20
DRAWING_STRENGTH = 0.7
# Looks that each held-out drawing is asked for, and pictures of each look that are painted from noise.
N_LOOKS = 2
N_FROM_NOISE = 8
CANNY_PROMPTS = ["ink drawing", "pencil sketch", "watercolour painting", "comic", "pop art", "blueprint"]
# What the app of edges uses where a client is silent, and noise alone.
CANNY_STRENGTHS = [0.8, 1.0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/pentimento-nano")
    parser.add_argument("--sheet", type=Path, default=None, help="default: <model>/contact-sheet.png")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
        evaluate(arguments)


def evaluate(arguments):
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    painter = Painter(arguments.model)
    photographs = held_out_photographs(arguments.cache)
    drawings = held_out_drawings(arguments.cache)
    contact_sheet(painter, photographs, drawings).quantize(192, dither=Image.Dither.NONE).save(
        arguments.sheet or arguments.model / "contact-sheet.png", optimize=True
    )
    canny_folder = arguments.model.with_name("pentimento-nano-canny")
    canny = CannyPainter(canny_folder, painter) if canny_folder.exists() else None
    if canny:
        canny_sheet(canny, photographs).quantize(192, dither=Image.Dither.NONE).save(
            canny_folder / "contact-sheet.png", optimize=True
        )
    if arguments.quick:
        return
    figures = {
        "autoencoder_psnr_db": {"photographs": psnr(painter, photographs), "drawings": psnr(painter, drawings)},
        **style_agreement(painter, photographs, arguments.cache),
        **drawing_figures(painter, arguments.cache),
        **look_figures(painter, drawings, arguments.cache),
        **strength_growth(painter, photographs + drawings[::5]),
        **(edge_figures(canny, painter, photographs, arguments.cache) if canny else {}),
    }
    (arguments.cache / "figures.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))


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


class CannyPainter(Painter):
    """The control variant: its transformer, and the other parts of the model that it belongs to."""

    def __init__(self, folder, painter):
        self.settings = json.loads((folder / "pentimento.json").read_text())
        transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        parts = {**{name: getattr(painter.pipeline, name) for name in names}, "transformer": transformer}
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


def canny_sheet(canny, photographs):
    """Rows of a control picture and what was painted under it, from the photograph and from noise."""
    return laid_out(
        [
            [
                (edges(photograph), "edges"),
                *((canny(prompt, photograph, strength), f"{prompt} {strength}") for prompt in CANNY_PROMPTS),
            ]
            for photograph in photographs
            for strength in CANNY_STRENGTHS
        ]
    )


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
    errors = [((coded(painter, picture) / 255.0 - picture / 255.0) ** 2).mean() for picture in pictures]
    return round(float(np.mean(-10 * np.log10(errors))), 2)


def coded(painter, picture):
    """The picture, encoded and decoded."""
    vae = painter.pipeline.vae
    source = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.autocast("cpu", enabled=False):
        result = vae.decode(vae.encode(source).latent_dist.mean).sample.clamp(-1, 1)
    return ((result[0].permute(1, 2, 0).numpy() + 1) * 127.5 + 0.5).astype(np.uint8)


PHOTO_BUCKETS = ("photos-256x256", "photos-208x304", "photos-304x208")
DRAWING_BUCKETS = ("drawings-128x128",)


# The style probe -----------------------------------------------------------------------------------------------------


def style_agreement(painter, photographs, cache):
    """The share of repainted held-out photographs in which the probe sees the prompted style, and the probe's own."""
    names = tuple(styles.WORDINGS)
    probe = train_probe(painter, names, PHOTO_BUCKETS, cache)
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
        "probe_on_them_encoded_and_decoded": agreement(probe, [(coded(painter, p), name) for p, name in real[::3]]),
        "style_agreement": agreement(probe, painted),
        "style_agreement_of_the_untouched_input": agreement(probe, untouched),
        "styles_never_recognized": [name for name in names if name != "photo" and right[name] == 0],
        "seconds_a_picture": round(seconds, 2),
    }


def agreement(probe, labelled):
    guesses = probe([picture for picture, _ in labelled])
    return round(float(np.mean([guess == name for guess, (_, name) in zip(guesses, labelled)])), 3)


@functools.cache
@torch.autocast("cpu", enabled=False)
def train_probe(painter, names, buckets, cache):
    """A small network over color and gradient statistics, trained on the training pictures of these styles.

    On these and on what the autoencoder makes of every other one: the probe is to know a look by what can be painted of
    it. In float32: autocast keeps its first copy of a weight, so that a network which is trained under it never changes.
    """
    inputs, labels = [], []
    for bucket in buckets:
        pictures = np.load(cache / f"pictures/{bucket}.npy", mmap_mode="r")
        for index, record in enumerate(json.loads((cache / f"pictures/{bucket}.json").read_text())):
            if record["style"] in names and (record["style"] != "photo" or index % 3 == 0):
                seen = [pictures[index]] if index % 2 else [pictures[index], coded(painter, pictures[index])]
                inputs += [statistics(picture) for picture in seen]
                labels += [names.index(record["style"])] * len(seen)
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

    @torch.autocast("cpu", enabled=False)
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


# Drawings ------------------------------------------------------------------------------------------------------------


def drawing_figures(painter, cache):
    """Held-out drawings in another set's style, and training subjects from noise: style, and subject among twenty."""
    names = tuple(sources.DRAWING_SETS)
    probe = train_probe(painter, names, DRAWING_BUCKETS, cache)
    held_out = drawings_by_subject(cache, "held-out-drawings")
    real = [(picture, style) for looks in held_out for style, (picture, _) in looks.items()]
    restyled, found, found_real = [], [], []
    for index, looks in enumerate(held_out):
        source, wanted = (list(looks)[(index + shift) % len(looks)] for shift in (0, 1))
        prompt = sources.DRAWING_SETS[wanted][2][0]
        painted = painter(prompt, looks[source][0], DRAWING_STRENGTH)
        restyled.append((painted, wanted))
        others = [other[wanted][0] for other in neighbors(held_out, index) if wanted in other]
        found.append(is_found(painted, looks[wanted][0], others))
        found_real.append(is_found(looks[source][0], looks[wanted][0], others))
    created, created_found = [], []
    training = drawings_by_subject(cache, "drawings-128x128")[:: len(sources.DRAWING_SETS) * 4][: 3 * N_SUBJECTS]
    blank = np.full((prepare.DRAWING_SIDE, prepare.DRAWING_SIDE, 3), 255, np.uint8)
    for index, looks in enumerate(training):
        wanted = list(looks)[index % len(looks)]
        picture, subject = looks[wanted]
        painted = painter(f"{sources.DRAWING_SETS[wanted][2][0]} of {subject}", blank, 1.0, seed=index)
        created.append((painted, wanted))
        others = [other[wanted][0] for other in neighbors(training, index) if wanted in other]
        created_found.append(is_found(painted, picture, others))
    return {
        "drawing_probe_on_real_held_out_drawings": agreement(probe, real),
        "drawings_restyled_at_0.7": {
            "style_agreement": agreement(probe, restyled),
            "subject_found_among_20": round(float(np.mean(found)), 3),
            "subject_found_in_the_untouched_input": round(float(np.mean(found_real)), 3),
        },
        "drawings_from_noise": {
            "style_agreement": agreement(probe, created),
            "subject_found_among_20": round(float(np.mean(created_found)), 3),
        },
    }


def look_figures(painter, drawings, cache):
    """Held-out drawings in the looks of filters: the look, and the subject among twenty drawings filtered alike.

    And photographic looks of held-out subjects from noise: the look.
    """
    names = tuple(name for name in styles.WORDINGS if name not in styles.OF_LIGHT)
    probe, rng = train_probe(painter, names, DRAWING_BUCKETS, cache), np.random.default_rng(11)
    filtered = {name: [styles.apply(name, drawing, rng, 0.5) for drawing in drawings] for name in names}
    real = [(picture, name) for name, pictures in filtered.items() for picture in pictures]
    restyled, found, found_real = [], [], []
    for index, drawing in enumerate(drawings):
        for turn in range(N_LOOKS):
            name = names[(index * N_LOOKS + turn) % len(names)]
            painted = painter(styles.WORDINGS[name][0], drawing, DRAWING_STRENGTH)
            restyled.append((painted, name))
            right, others = filtered[name][index], neighbors(filtered[name], index)
            found.append(is_found(painted, right, others))
            found_real.append(is_found(drawing, right, others))
    looks = tuple(styles.WORDINGS)
    blank = np.full((256, 256, 3), 255, np.uint8)
    created = [
        (painter(f"{styles.WORDINGS[name][0]} of {subject[0]}", blank, 1.0, seed=index), name)
        for name in looks
        for index, subject in enumerate(held_out_subjects(cache)[:N_FROM_NOISE])
    ]
    return {
        "look_probe_on_really_filtered_held_out_drawings": agreement(probe, real),
        "the_same_encoded_and_decoded": agreement(probe, [(coded(painter, p), name) for p, name in real[::3]]),
        f"drawings_in_looks_at_{DRAWING_STRENGTH}": {
            "look_agreement": agreement(probe, restyled),
            "look_agreement_of_the_untouched_input": agreement(
                probe, [(drawing, name) for (_, name), drawing in zip(restyled, np.repeat(drawings, N_LOOKS, 0))]
            ),
            "subject_found_among_20": round(float(np.mean(found)), 3),
            "subject_found_in_the_untouched_input": round(float(np.mean(found_real)), 3),
        },
        "looks_from_noise": agreement(train_probe(painter, looks, PHOTO_BUCKETS, cache), created),
    }


def held_out_subjects(cache):
    """The words of held-out drawings, a list each."""
    records = json.loads((cache / "pictures/held-out-drawings.json").read_text())
    return list({record["group"]: record["subjects"] for record in records}.values())


def drawings_by_subject(cache, name):
    """One `{set: (picture, subject)}` a subject."""
    pictures = np.load(cache / f"pictures/{name}.npy", mmap_mode="r")
    subjects = {}
    for index, record in enumerate(json.loads((cache / f"pictures/{name}.json").read_text())):
        if record["style"] in sources.DRAWING_SETS:
            looks = subjects.setdefault(record["group"], {})
            looks[record["style"]] = (np.asarray(pictures[index]), record["subjects"][0])
    return list(subjects.values())


def neighbors(subjects, index):
    """So many other subjects that there are `N_SUBJECTS` with this one."""
    return [subjects[(index + 1 + offset) % len(subjects)] for offset in range(N_SUBJECTS - 1)]


def is_found(painted, right, others):
    """Whether the right drawing is more alike in shape than all others."""
    likeness = [float((shape(painted) * shape(drawing)).sum()) for drawing in (right, *others)]
    return likeness[0] > max(likeness[1:])


def shape(picture):
    """Where a drawing differs from its background, 16 x 16, centered, of mean 0 and length 1."""
    source = picture.astype(np.float32)
    border = np.concatenate([source[0], source[-1], source[:, 0], source[:, -1]])
    mask = np.abs(source - np.median(border, 0)).sum(2)
    moments = cv2.moments(mask)
    if moments["m00"] > 0:
        x, y = (length / 2 - moments[name] / moments["m00"] for length, name in zip(mask.shape[::-1], ("m10", "m01")))
        mask = cv2.warpAffine(mask, np.float32([[1, 0, x], [0, 1, y]]), mask.shape[::-1])
    small = cv2.resize(mask, (16, 16), interpolation=cv2.INTER_AREA)
    small -= small.mean()
    return small / (np.linalg.norm(small) + 1e-6)


# Strength and edges --------------------------------------------------------------------------------------------------


def edge_figures(canny, painter, photographs, cache):
    """Of the photograph's edges, those that the painted picture has within two pixels.

    For comparison those that the model without control keeps at the same strength, and those of another photograph.
    """
    probe = train_probe(painter, tuple(styles.WORDINGS), PHOTO_BUCKETS, cache)
    names = {wordings[0]: name for name, wordings in styles.WORDINGS.items()}
    figures = {}
    for strength in CANNY_STRENGTHS:
        kept, without, chance, painted = [], [], [], []
        for index, photograph in enumerate(photographs):
            for prompt in CANNY_PROMPTS:
                result = canny(prompt, photograph, strength)
                painted.append((result, names[prompt]))
                kept.append(edges_kept(photograph, result))
                without.append(edges_kept(photograph, painter(prompt, photograph, strength)))
                chance.append(edges_kept(photographs[index - 1], result))
        figures[f"canny_at_{strength}"] = {
            "edges_kept": round(float(np.mean(kept)), 3),
            "edges_kept_without_control": round(float(np.mean(without)), 3),
            "edges_of_another_photograph": round(float(np.mean(chance)), 3),
            "style_agreement": agreement(probe, painted),
        }
    return figures


def edges_kept(control, painted):
    wanted = cv2.Canny(control, 50, 200) > 0
    there = cv2.dilate(cv2.Canny(painted, 50, 200), np.ones((5, 5), np.uint8)) > 0
    return float((wanted & there).sum() / max(wanted.sum(), 1))


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

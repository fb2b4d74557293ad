"""Builds the training set: fetches the packages, draws and filters the pictures, writes arrays and their records.

    python prepare.py [--cache ../target/nano] [--seed 0]

Writes `<cache>/pictures/<bucket>.npy` (uint8, `(n, height, width, 3)`) and `<bucket>.json` (one record a picture). A
record names the picture's `group`: the same crop or subject in different looks, which training pairs for restyling.
`drawings.npy` has every drawing by itself, with its transparency.
Needs `npm`, `apt-get` with `dpkg` and `pip` on the path, and about 14 GB of disk.
"""

import argparse
import bz2
import io
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import resvg_py
from PIL import Image

import captions
import sources
import styles

HERE = Path(__file__).resolve().parent
N_PROMPTS = 8
# Sides in pixels, (height, width); every side is a multiple of 16.
PHOTO_BUCKETS = {
    "photos-128x128": ((128, 128), 14, 3),
    "photos-256x256": ((256, 256), 5, 4),
    "photos-208x304": ((208, 304), 3, 4),
    "photos-304x208": ((304, 208), 2, 4),
}
DRAWING_SIDE = 256
# A drawing that is created from noise lies in the middle and takes this much of the side.
CREATED_SHARE = 0.875
# Views of each subject to restyle, and looks of filters in which each is created.
N_DRAWING_VIEWS = 2
N_CREATED_LOOKS = 3
# How often subjects of these groups of emoji are drawn, against 1 of animals and things: people come in many variants
# that differ little, and few ask for a traffic sign. Groups are numbered as in emojibase.
GROUP_WEIGHTS = {1: 0.5, 8: 0.6}
# Emojibase's groups of flags, and of parts that only make up others.
GROUPS_LEFT_OUT = (2, 9)
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (18, 18, 20),
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 214, 70),
    "green": (60, 160, 80),
    "blue": (50, 110, 220),
    "light blue": (150, 205, 245),
    "purple": (130, 70, 190),
    "pink": (246, 160, 190),
    "gray": (150, 152, 156),
    "brown": (120, 80, 50),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    packages = {package.name: sources.fetch(package, arguments.cache / "sources") for package in sources.PACKAGES}
    output = arguments.cache / "pictures"
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)

    kept, held_out = load_photographs(packages)
    for bucket, (size, n_views, n_styles) in PHOTO_BUCKETS.items():
        write_bucket(output / bucket, photo_groups(kept, size, n_views, n_styles, rng), rng)
    write_bucket(output / "held-out-photos", photo_groups(held_out, (256, 256), 2, 0, rng), rng)

    drawings, emoji = load_drawings(packages)
    write_drawings(output / "drawings", drawings, emoji)
    training = [key for key in drawings if not is_held_out(key)]
    write_bucket(output / "drawings-256x256", drawing_groups(drawings, emoji, training * N_DRAWING_VIEWS, rng), rng)
    write_bucket(output / "looks-256x256", created_looks(drawings, emoji, training, rng), rng)
    held_out = [key for key in drawings if is_held_out(key)]
    write_bucket(output / "held-out-drawings", drawing_groups(drawings, emoji, held_out, rng), rng)


def is_held_out(key, drawing_set=None):
    """One subject in twenty-five is never trained on, and of the others one drawing in thirty-six."""
    if int(key.split("-")[0], 16) % 25 == 7:
        return True
    return drawing_set is not None and zlib.crc32(f"{key} {drawing_set}".encode()) % 36 == 3


def write_bucket(path, groups, rng):
    """Saves `groups`, lists of `(picture, record)`, as one array and one list of records with prompts."""
    pictures, records = [], []
    for group, members in enumerate(groups):
        for picture, record in members:
            prompts = [captions.write(record, rng, restyled=len(members) > 1) for _ in range(N_PROMPTS)]
            pictures.append(picture)
            records.append({**record, "group": group, "prompts": prompts})
    np.save(path.with_suffix(".npy"), np.stack(pictures))
    path.with_suffix(".json").write_text(json.dumps(records))
    print(f"{path.name}: {len(pictures)} pictures in {records[-1]['group'] + 1} groups", flush=True)


# Photographs ---------------------------------------------------------------------------------------------------------


def load_photographs(packages):
    """The photographs of `photographs.json` as (array, words), those to train on and those held out."""
    kept, held_out = [], []
    for row in json.loads((HERE / "photographs.json").read_text()):
        folder = packages[row["package"]]
        path = folder / "package" / row["file"] if (folder / "package").exists() else folder / row["file"]
        photograph = (read_raccoon(path) if path.suffix == ".dat" else Image.open(path)).convert("RGB")
        photograph.thumbnail((1000, 1000), Image.LANCZOS)
        (held_out if row.get("held_out") else kept).append((np.asarray(photograph), row["words"]))
    return kept, held_out


def read_raccoon(path):
    return Image.fromarray(np.frombuffer(bz2.decompress(path.read_bytes()), np.uint8).reshape(768, 1024, 3))


def photo_groups(photographs, size, n_views, n_styles, rng):
    names = [name for name in styles.FILTERS if name != "photo"]
    deck = []
    for photograph, words in photographs:
        for _ in range(n_views):
            view = crop(photograph, size, rng)
            members = [(view, {"style": "photo", "subjects": [words]})]
            for _ in range(n_styles):
                deck = deck or list(rng.permutation(names))
                style = str(deck.pop())
                filtered = styles.apply(style, view, rng, unit_of(size))
                members.append((filtered, {"style": style, "subjects": [words]}))
            yield members


def unit_of(size):
    return min(size) / 256 if min(size) < 192 else 1.0


def crop(photograph, size, rng):
    """A random crop of the wanted shape, from half of what fits to all of it, perhaps mirrored."""
    height, width = photograph.shape[:2]
    scale = min(height / size[0], width / size[1]) * rng.uniform(0.55, 1.0) ** 0.7
    h, w = int(size[0] * scale), int(size[1] * scale)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    view = cv2.resize(photograph[top : top + h, left : left + w], size[::-1], interpolation=cv2.INTER_AREA)
    view = np.clip(view * rng.uniform(0.9, 1.12) + rng.uniform(-8, 8), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)


# Drawings ------------------------------------------------------------------------------------------------------------


def load_drawings(packages):
    """All drawings as `{emoji code: {set: RGBA array}}`, and each code's words, label first, and weight."""
    data = json.loads((packages["emojibase-data"] / "package/en/data.json").read_text())
    emoji = {
        clean(entry["hexcode"]): {
            "subjects": [entry["label"].lower(), *entry.get("tags", [])[:5]],
            "weight": GROUP_WEIGHTS.get(entry["group"], 1.0),
        }
        for entry in data
        if entry.get("group") is not None and entry["group"] not in GROUPS_LEFT_OUT
    }
    drawings = {code: {} for code in emoji}
    for path in sorted((packages["@lobehub/fluent-emoji-3d"] / "package/assets").glob("*.webp")):
        if clean(path.stem) in drawings:
            drawings[clean(path.stem)]["3d"] = resized(Image.open(path).convert("RGBA"))
    for name, (package, _, _) in sources.DRAWING_SETS.items():
        if package == "@iconify/json":
            for code, drawing in icon_set(packages[package] / "package/json", name, drawings):
                drawings[code][name] = drawing
    return {code: looks for code, looks in drawings.items() if len(looks) >= 3}, emoji


def clean(code):
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def icon_set(folder, set_name, wanted):
    """The drawings of one set, found by emoji code; a set without codes shares noto's names."""
    data = json.loads((folder / f"{set_name}.json").read_text())
    names = data.get("chars") or json.loads((folder / "noto.json").read_text())["chars"]
    for code, name in names.items():
        # resvg stops the process on this one drawing of noto.
        if clean(code) not in wanted or (set_name == "noto" and code == "1f4e6"):
            continue
        icon = data["icons"].get(name)
        if icon is None:
            continue
        width, height = (icon.get(side, data.get(side, 16)) for side in ("width", "height"))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg.replace("currentColor", "#111"), width=DRAWING_SIDE)
        yield clean(code), resized(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def resized(drawing):
    return np.asarray(drawing.resize((DRAWING_SIDE, DRAWING_SIDE), Image.LANCZOS))


def write_drawings(path, drawings, emoji):
    """Saves every drawing, and of each its set, its subject's words and weight, and whether it is held out."""
    pictures, records = [], []
    for key, looks in drawings.items():
        for drawing_set, drawing in looks.items():
            pictures.append(drawing)
            records.append({"key": key, "style": drawing_set, **emoji[key], "held_out": is_held_out(key, drawing_set)})
    np.save(path.with_suffix(".npy"), np.stack(pictures))
    path.with_suffix(".json").write_text(json.dumps(records))
    print(
        f"{path.name}: {len(pictures)} drawings, {sum(record['held_out'] for record in records)} held out", flush=True
    )


def trained_on(drawings, key):
    """A subject's drawings without those held out, unless the subject is."""
    return {name: look for name, look in drawings[key].items() if is_held_out(key) or not is_held_out(key, name)}


def drawing_groups(drawings, emoji, keys, rng):
    """One group a subject and view: every set's drawing of it on one background, and two filtered versions."""
    for key in keys:
        background = str(rng.choice(list(BACKGROUNDS))) if rng.random() < 0.7 else "white"
        side = int(DRAWING_SIDE * rng.uniform(0.68, 0.98))
        top, left = rng.integers(DRAWING_SIDE - side + 1, size=2)
        members = []
        subjects = emoji[key]["subjects"]
        for look, drawing in trained_on(drawings, key).items():
            canvas = compose(drawing, BACKGROUNDS[background], side, top, left)
            members.append((canvas, {"style": look, "subjects": subjects, "background": background}))
        n_drawn = len(members)
        for style in rng.choice(drawing_filters(), size=2, replace=False):
            canvas, record = members[rng.integers(n_drawn)]
            filtered = styles.apply(str(style), canvas, rng)
            members.append((filtered, {"style": str(style), "subjects": subjects, "look": record["style"]}))
        yield members


def created_looks(drawings, emoji, keys, rng):
    """Groups of one: a subject in a filter's look, as large and in the middle as created drawings are."""
    for key in keys:
        looks = list(trained_on(drawings, key).values())
        for style in rng.choice(drawing_filters(), size=N_CREATED_LOOKS, replace=False):
            color = BACKGROUNDS[str(rng.choice(list(BACKGROUNDS)))] if rng.random() < 0.5 else BACKGROUNDS["white"]
            canvas = in_the_middle(looks[rng.integers(len(looks))], color)
            yield [(styles.apply(str(style), canvas, rng), {"style": str(style), "subjects": emoji[key]["subjects"]})]


def drawing_filters():
    return [name for name in styles.FILTERS if name not in styles.OF_LIGHT]


def in_the_middle(drawing, color, canvas_side=DRAWING_SIDE):
    side = int(canvas_side * CREATED_SHARE)
    return compose(drawing, color, side, *[(canvas_side - side) // 2] * 2, canvas_side)


def compose(drawing, color, side, top, left, canvas_side=DRAWING_SIDE):
    """Lays the drawing, `side` pixels large, on a plain square."""
    small = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    canvas = np.empty((canvas_side, canvas_side, 3), np.float32)
    canvas[:] = color
    alpha = small[..., 3:] / 255
    window = canvas[top : top + side, left : left + side]
    window[:] = window * (1 - alpha) + small[..., :3] * alpha
    return canvas.astype(np.uint8)


if __name__ == "__main__":
    main()

"""What the transformer learns from: pictures as tokens with their prompts' ids, in buckets of one size."""

import json
import os

import numpy as np
import torch

import captions
import models
import prepare

TEXT_DROPPED = 0.1
# Which batches of restyling are crops of `CROP_TOKENS` a side: more pictures, and with them more styles, for the same
# number of tokens.
RESTYLE_CROPPED = 0.65
CROP_TOKENS = 12
# Crops lie on this grid, three tokens or 48 pixels, which is where the grids of mosaic, pixels and blueprint meet.
CROP_GRID = 3
# How often a style is a target, against 1 of the others: those that redraw contours need more than those that only
# change colors, and nobody asks for a plain photograph.
STYLE_WEIGHTS = {
    **dict.fromkeys(("pencil", "charcoal", "ink", "oil", "comic", "popart", "poster", "glass"), 2.0),
    **dict.fromkeys(("pixel", "lowpoly", "dots", "neon", "blueprint", "chalk", "pastel"), 2.0),
    "photo": 0.3,
}
# The sides in tokens of the squares that drawings are created in: the middle of the canvases below.
DRAWN_SIDES = (16, 13)
CANVASES = {(16, 16): 0.7, (13, 19): 0.15, (19, 13): 0.15}
# Image tokens in a batch, whatever their bucket.
BATCH_TOKENS = 64 * 28


class Bucket:
    """The latents of one picture size, their prompts as token ids, and which pictures belong together."""

    edges = None

    def __init__(self, name, cache, statistics, clip_tokenizer, t5_tokenizer):
        latents = np.load(cache / "latents" / f"{name}.npy")
        self.tokens = normalized(latents, statistics)
        self.height, self.width = latents.shape[2] // 2, latents.shape[3] // 2
        records = json.loads((cache / "pictures" / f"{name}.json").read_text())
        self.n_prompts = len(records[0]["prompts"])
        prompts = [prompt for record in records for prompt in record["prompts"]]
        # The last row is the empty prompt, which stands in for a dropped one.
        path = cache / "latents" / f"{name}-ids.pt"
        if not path.exists():
            # Another worker may be doing the same.
            partial = path.with_suffix(f".{os.getpid()}")
            torch.save(token_ids([*prompts, ""], clip_tokenizer, t5_tokenizer), partial)
            os.replace(partial, path)
        self.clip_ids, self.t5_ids = torch.load(path)
        group = np.array([record["group"] for record in records])
        self.first = np.searchsorted(group, group)
        self.size = np.searchsorted(group, group, side="right") - self.first
        # Photographs come first in their groups, and are what people bring.
        self.from_first = 0.72 if records[0]["style"] == "photo" else 0.0
        weights = np.array([STYLE_WEIGHTS.get(record["style"], 1.0) for record in records])
        self.weights = weights / weights.sum()
        edges = cache / "latents" / f"{name}-edges.npy"
        if edges.exists():
            self.edges = normalized(np.load(edges), statistics)
            self.group = np.unique(group, return_inverse=True)[1]

    def draw(self, view, rng, device):
        """A batch of pictures in this view: `(tokens, clip_ids, t5_ids)`."""
        chosen = rng.choice(len(self.tokens), size=batch_size(view), p=self.weights)
        tokens = self.tokens[chosen][:, view.places].float().to(device)
        return tokens, *self.prompts(chosen, rng, device)

    def draw_restyled(self, rng, device):
        """A batch of pictures to start from and to come to: `((target, source, clip_ids, t5_ids), edges, view)`.

        From a photograph to a style, or from any drawing to any other of its subject, perhaps cropped; one in five
        starts from itself. The edges, `None` if there are none, are those of the first picture of the group.
        """
        cropped = min(self.height, self.width) >= CROP_TOKENS and rng.random() < RESTYLE_CROPPED
        view = self.crop(rng) if cropped else View.whole((self.height, self.width))
        n_batch = batch_size(view)
        target = rng.choice(len(self.tokens), size=n_batch, p=self.weights)
        choice = rng.random(n_batch)
        other = self.first[target] + rng.integers(self.size[target])
        source = np.where(choice < self.from_first, self.first[target], np.where(choice < 0.8, other, target))
        tokens = [self.tokens[chosen][:, view.places].float().to(device) for chosen in (target, source)]
        edges = None if self.edges is None else self.edges[self.group[target]][:, view.places].float().to(device)
        return (*tokens, *self.prompts(target, rng, device)), edges, view

    def crop(self, rng):
        corner = [
            CROP_GRID * int(rng.integers((length - CROP_TOKENS) // CROP_GRID + 1))
            for length in (self.height, self.width)
        ]
        window = View.window((self.height, self.width), corner, CROP_TOKENS)
        # A crop is a picture of its own, whose rows and columns begin at zero.
        window.img_ids = View.whole((CROP_TOKENS, CROP_TOKENS)).img_ids
        return window

    def prompts(self, chosen, rng, device):
        prompt = np.where(
            rng.random(len(chosen)) < TEXT_DROPPED,
            len(self.t5_ids) - 1,
            chosen * self.n_prompts + rng.integers(self.n_prompts, size=len(chosen)),
        )
        return self.clip_ids[prompt].to(device), self.t5_ids[prompt].to(device)


class Drawings:
    """Every drawing to train on, in the middle of a canvas of any plain color, with prompts written as they are drawn.

    The encoder is linear, so a drawing's latents are those on black and what each channel of the color adds to them.
    """

    def __init__(self, cache, statistics, clip_tokenizer, t5_tokenizer):
        self.latents = {side: np.load(cache / f"latents/drawings-{side}.npy", mmap_mode="r") for side in DRAWN_SIDES}
        self.statistics, self.tokenizers = statistics, (clip_tokenizer, t5_tokenizer)
        self.subjects = {}
        for index, record in enumerate(json.loads((cache / "pictures/drawings.json").read_text())):
            if not record["held_out"]:
                self.subjects.setdefault(record["key"], []).append((index, record))
        self.keys = list(self.subjects)
        weights = np.array([looks[0][1]["weight"] for looks in self.subjects.values()])
        self.weights = weights / weights.sum()

    def draw(self, view, rng, device):
        """A batch in this view, a half on white: `(tokens, clip_ids, t5_ids)`."""
        tokens, prompts = self.some(batch_size(view), view, rng)
        return tokens.to(device), *self.ids(prompts, rng, device)

    def some(self, count, view, rng):
        """Drawings of `count` subjects in this view, `(count, n, 64)`, and a prompt for each."""
        chosen = rng.choice(len(self.keys), size=count, p=self.weights)
        tokens, prompts = zip(*(self.one(self.keys[key], view, rng) for key in chosen))
        return torch.stack(tokens), list(prompts)

    def draw_restyled(self, view, rng, device):
        """A batch of drawings and what they come from, another drawing of the subject on perhaps another color."""
        chosen = [self.keys[key] for key in rng.choice(len(self.keys), size=batch_size(view), p=self.weights)]
        target, prompts = zip(*(self.one(key, view, rng) for key in chosen))
        source = [self.one(key, view, rng)[0] for key in chosen]
        return torch.stack(target).to(device), torch.stack(source).to(device), *self.ids(prompts, rng, device)

    def one(self, key, view, rng):
        """One of a subject's drawings on some background: its tokens `(n, 64)` and a prompt for it."""
        looks = self.subjects[key]
        index, record = looks[rng.integers(len(looks))]
        colors = list(prepare.BACKGROUNDS)
        background = "white" if rng.random() < 0.5 else colors[rng.integers(len(colors))]
        prompt = captions.write({**record, "background": background}, rng)
        return self.tokens(index, prepare.BACKGROUNDS[background], view), prompt

    def tokens(self, index, color, view):
        """The tokens in this view of a drawing on a color, levels 0 to 255: `(n, 64)`."""
        side = min(view.height, view.width)
        row, column = view.places // view.width, view.places % view.width
        row, column = row - (view.height - side) // 2, column - (view.width - side) // 2
        drawn = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        latents = self.latents[side][index][:, np.where(drawn, row * side + column, 0)].astype(np.float32)
        # A drawing leaves the corner of its largest square free.
        latents[:, ~drawn] = self.latents[max(DRAWN_SIDES)][index][:, :1]
        black, *channels = torch.from_numpy(latents)
        latents = black + sum(level / 255 * channel for level, channel in zip(color, channels))
        return (latents - self.statistics["shift_factor"]) * self.statistics["scaling_factor"]

    def ids(self, prompts, rng, device):
        kept = ["" if rng.random() < TEXT_DROPPED else prompt for prompt in prompts]
        return (ids.to(device) for ids in token_ids(kept, *self.tokenizers))


class View:
    """Which image tokens of a picture a batch has, and where in the picture they lie."""

    def __init__(self, size, rows, columns):
        """Of a picture of `(height, width)` tokens those of these rows and columns."""
        self.height, self.width = size
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        # Into the picture's tokens, `(n,)`; and FLUX's positions, `(n, 3)`.
        self.places = grid[:, 0] * self.width + grid[:, 1]
        self.img_ids = torch.from_numpy(np.concatenate([np.zeros_like(grid[:, :1]), grid], 1)).float()

    @staticmethod
    def whole(size):
        return View(size, *map(np.arange, size))

    @staticmethod
    def window(size, corner, side):
        return View(size, *(np.arange(start, start + side) for start in corner))

    @staticmethod
    def lattice(size, rng):
        """Every second row and column, beginning with the first or second: a picture for a quarter of the cost."""
        return View(size, *(np.arange(rng.integers(2), length, 2) for length in size))


def batch_size(view):
    return max(1, BATCH_TOKENS // len(view.places))


def normalized(latents, statistics):
    """Stored latents as the transformer's tokens."""
    return pack((torch.from_numpy(latents).float() - statistics["shift_factor"]) * statistics["scaling_factor"]).half()


def pack(latents):
    """FLUX's 2 x 2 patches: `(b, c, h, w)` to `(b, h/2 * w/2, 4c)`."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def token_ids(prompts, *tokenizers):
    """The ids of prompts by each tokenizer, `(n, SEQUENCE_LENGTH)`."""
    return [
        tokenizer(
            prompts, padding="max_length", max_length=models.SEQUENCE_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        for tokenizer in tokenizers
    ]

"""The judges of painted pictures: small networks that learned from the training pictures alone.

`look_probe` knows the looks of filters, `DrawingProbe` the sets that drawings come from and which drawings show the same
subject. Both learned from pictures and from what the autoencoder makes of them, so that they judge a painted picture
and not the autoencoder.
"""

import json
import time

import cv2
import numpy as np
import torch
from torch.nn import functional

import prepare
import sources

DRAWING_SETS = tuple(sources.DRAWING_SETS)
# The pictures that `DrawingProbe` sees are this wide: the sets differ in shading and shape, not in grain.
PROBE_SIDE = 128
N_CODED = 1600
BATCH = 48


@torch.autocast("cpu", enabled=False)
def look_probe(painter, names, buckets, cache):
    """A small network over color and gradient statistics: a function from pictures to names of looks.

    In float32: autocast keeps its first copy of a weight, so that a network which is trained under it never changes.
    """
    inputs, labels = [], []
    for bucket in buckets:
        pictures = np.load(cache / f"pictures/{bucket}.npy", mmap_mode="r")
        for index, record in enumerate(json.loads((cache / f"pictures/{bucket}.json").read_text())):
            if record["style"] in names and (record["style"] != "photo" or index % 3 == 0):
                seen = [pictures[index]] if index % 2 else [pictures[index], painter.coded(pictures[index])]
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
            loss = functional.cross_entropy(network((inputs[batch] - mean) / deviation), labels[batch])
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


class DrawingProbe(torch.nn.Module):
    """Tells a drawing's set, and places drawings of one subject near each other, whatever their sets."""

    def __init__(self):
        super().__init__()
        sizes = [(3, 24, 2), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 192, 2), (192, 192, 1)]
        layers = []
        for n_in, n_out, stride in sizes:
            layers += [
                torch.nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
                torch.nn.BatchNorm2d(n_out),
                torch.nn.ReLU(),
            ]
        self.body = torch.nn.Sequential(*layers)
        self.dropout = torch.nn.Dropout(0.2)
        self.set_head = torch.nn.Linear(2 * 192, len(DRAWING_SETS))
        self.subject_head = torch.nn.Linear(192 * (PROBE_SIDE // 16) ** 2, 128)

    def forward(self, pictures):
        """Of pictures `(b, 3, PROBE_SIDE, PROBE_SIDE)` the scores of sets and unit vectors of subjects."""
        features = self.body(pictures)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        subject = self.subject_head(self.dropout(features.flatten(1)))
        return self.set_head(self.dropout(pooled)), functional.normalize(subject, dim=1)

    @torch.autocast("cpu", enabled=False)
    def sets(self, pictures):
        return [DRAWING_SETS[index] for index in self(inputs(pictures))[0].argmax(1)]

    @torch.autocast("cpu", enabled=False)
    def is_found(self, painted, right, others):
        """Whether the drawing of the right subject is nearer than those of all others."""
        painted, right, *others = self(inputs([painted, right, *others]))[1]
        return bool(painted @ right > max(painted @ other for other in others))


def inputs(pictures):
    small = [cv2.resize(picture, (PROBE_SIDE, PROBE_SIDE), interpolation=cv2.INTER_AREA) for picture in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def drawing_probe(painter, cache, minutes):
    """The trained probe; kept in the cache."""
    path = cache / "checkpoints/drawing-probe.pt"
    probe = DrawingProbe()
    if not path.exists():
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            train_drawing_probe(probe, painter, cache, minutes)
        torch.save(probe.state_dict(), path)
    probe.load_state_dict(torch.load(path, weights_only=True))
    return probe.eval()


def train_drawing_probe(probe, painter, cache, minutes):
    rng = np.random.default_rng(3)
    looks = TrainingLooks(painter, cache, rng)
    probe.to(memory_format=torch.channels_last)
    sharpness = torch.nn.Parameter(torch.tensor(2.3))
    optimizer = torch.optim.AdamW([*probe.parameters(), sharpness], lr=2e-3, weight_decay=0.05)
    progress, step, begun = 0, 0, time.monotonic()
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (1 + np.cos(np.pi * progress)) / 2
        first, second, labels = looks.draw(rng)
        # Without its cache, which would keep the first copies of weights that change.
        with torch.autocast("cpu", torch.bfloat16, torch.cpu._is_avx512_bf16_supported(), cache_enabled=False):
            scores, subjects = probe(torch.cat([first, second]).to(memory_format=torch.channels_last))
        scores, subjects = scores.float(), subjects.float()
        alike = subjects[:BATCH] @ subjects[BATCH:].T * sharpness.exp()
        pairs = torch.arange(BATCH)
        told_apart = functional.cross_entropy(alike, pairs) + functional.cross_entropy(alike.T, pairs)
        loss = functional.cross_entropy(scores, labels) + 0.5 * told_apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        progress = (time.monotonic() - begun) / (60 * minutes)
        if step % 100 == 0:
            print(f"drawing probe: step {step}, loss {float(loss.detach()):.3f}", flush=True)


class TrainingLooks:
    """Two drawings of each of some subjects, anywhere on any ground, sharp, soft, grainy or coded."""

    def __init__(self, painter, cache, rng):
        drawings = np.load(cache / "pictures/drawings.npy", mmap_mode="r")
        self.small = np.stack(
            [cv2.resize(drawing, (PROBE_SIDE,) * 2, interpolation=cv2.INTER_AREA) for drawing in drawings]
        )
        self.subjects = {}
        for index, record in enumerate(json.loads((cache / "pictures/drawings.json").read_text())):
            if not record["held_out"]:
                self.subjects.setdefault(record["key"], []).append((index, DRAWING_SETS.index(record["style"])))
        self.keys = [key for key, looks in self.subjects.items() if len(looks) > 1]
        trained = [index for looks in self.subjects.values() for index, _ in looks]
        self.coded = {}
        for index in rng.choice(trained, size=N_CODED, replace=False):
            picture = prepare.in_the_middle(drawings[index], ground(rng))
            self.coded[index] = cv2.resize(painter.coded(picture), (PROBE_SIDE,) * 2, interpolation=cv2.INTER_AREA)

    def draw(self, rng):
        chosen = [self.subjects[self.keys[key]] for key in rng.choice(len(self.keys), BATCH, replace=False)]
        pairs = [[looks[place] for place in rng.permutation(len(looks))[:2]] for looks in chosen]
        first, second = (inputs([self.seen(index, rng) for index, _ in looks]) for looks in zip(*pairs))
        labels = [label for looks in zip(*pairs) for _, label in looks]
        return first, second, torch.tensor(labels)

    def seen(self, index, rng):
        if index in self.coded and rng.random() < 0.6:
            # Moved a little, since all of these lie in the middle.
            shift = tuple(int(value) for value in rng.integers(-6, 7, size=2))
            return np.roll(self.coded[index], shift, (0, 1))
        side = int(PROBE_SIDE * rng.uniform(0.68, 0.98))
        top, left = rng.integers(PROBE_SIDE - side + 1, size=2)
        picture = prepare.compose(self.small[index], ground(rng), side, top, left, PROBE_SIDE).astype(np.float32)
        if rng.random() < 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.1))
        grain = rng.uniform(0, 8) * (rng.random() < 0.5)
        return np.clip(picture + grain * rng.standard_normal(picture.shape), 0, 255).astype(np.float32)


def ground(rng):
    colors = list(prepare.BACKGROUNDS.values())
    return colors[rng.integers(len(colors))] if rng.random() < 0.7 else prepare.BACKGROUNDS["white"]

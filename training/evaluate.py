"""Measures a trained model folder and paints its contact sheets.

    python evaluate.py [--cache ../target/nano] [--model ../models/pentimento-nano] [--only created …] [--bfloat16]

Prints, and writes to `<cache>/figures.json`: the autoencoder's PSNR on held-out pictures; how often a probe that learned
from the training pictures alone recognizes the prompted look or set in repainted photographs, in repainted drawings and
in pictures from noise; how often it finds their subject among twenty, as does a plain comparison of small copies;
whether the distance to the input grows with `strength`; and, if the control variant lies beside the model, how well it
keeps to the edges. Each probe's own figures on real held-out pictures stand beside what it says. `--only` computes these
groups of figures alone: `sheets`, `autoencoder`, `photographs`, `looks`, `drawings`, `created`, `strength`, `edges`.
`--bfloat16` multiplies matrices in bfloat16, faster where a processor has it and nearly the same.
"""

import argparse
import functools
import itertools
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import prepare
import probes
import sheets
import sources
import styles
from painters import CannyPainter, Painter, edges

HERE = Path(__file__).resolve().parent
PHOTO_BUCKETS = ("photos-256x256", "photos-208x304", "photos-304x208")
DRAWING_BUCKETS = ("drawings-256x256", "looks-256x256")
STRENGTHS = [0.2, 0.4, 0.6, 0.8, 1.0]
# Among how many a subject has to be found.
N_SUBJECTS = 20
DRAWING_STRENGTH = 0.7
# Looks, or sets, that each held-out drawing is asked for; pictures of each look, and of all sets, from noise.
N_ASKED = 2
N_LOOKS_FROM_NOISE = 8
N_CREATED = 200
# The side of the small copies in which painted and drawn subjects are compared without a probe.
SHRUNK_SIDE = 16
# Pictures are painted from so many seeds before their mean distance to the input is taken.
N_STRENGTH_SEEDS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/pentimento-nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--probe-minutes", type=float, default=30, help="how long the probe of drawings learns")
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
        evaluate(arguments)


def evaluate(arguments):
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    judge = Judge(arguments)
    groups = {
        "sheets": judge.paint_sheets,
        "autoencoder": judge.autoencoder,
        "photographs": judge.photographs,
        "looks": judge.looks,
        "drawings": judge.drawings,
        "created": judge.created,
        "strength": judge.strength,
        "edges": judge.edges,
    }
    path = arguments.cache / "figures.json"
    figures = json.loads(path.read_text()) if path.exists() and arguments.only else {}
    for name in arguments.only or groups:
        begun = time.monotonic()
        figures[name] = groups[name]()
        print(name, f"{time.monotonic() - begun:.0f} s", json.dumps(figures[name], indent=2), flush=True)
        path.write_text(json.dumps(figures, indent=2))


class Judge:
    """A model, the pictures that it is judged on, and each group of figures."""

    def __init__(self, arguments):
        self.cache, self.model, self.probe_minutes = arguments.cache, arguments.model, arguments.probe_minutes
        self.painter, self.look_probes = Painter(arguments.model), {}
        folder = arguments.model.with_name("pentimento-nano-canny")
        self.canny = CannyPainter(folder, self.painter) if folder.exists() else None
        self.held_out_photographs = held_out_photographs(self.cache)
        self.by_subject, self.held_out_looks = held_out_drawings(self.cache)
        # One drawing a held-out subject, in a different set from one subject to the next.
        self.held_out = [list(looks.values())[i % len(looks)] for i, (looks, _) in enumerate(self.by_subject)]

    def look_probe(self, names, buckets):
        if (names, buckets) not in self.look_probes:
            self.look_probes[names, buckets] = probes.look_probe(self.painter, names, buckets, self.cache)
        return self.look_probes[names, buckets]

    @functools.cached_property
    def drawing_probe(self):
        return probes.drawing_probe(self.painter, self.cache, self.probe_minutes)

    def paint_sheets(self):
        sheets.save(
            sheets.contact_sheet(self.painter, self.held_out_photographs, self.held_out),
            self.model / "contact-sheet.png",
        )
        if self.canny:
            sheets.save(
                sheets.canny_sheet(self.canny, self.held_out_photographs),
                self.model.with_name("pentimento-nano-canny") / "contact-sheet.png",
            )

    def autoencoder(self):
        """The mean PSNR in dB of encoding and decoding, pixels in 0..1."""

        def psnr(pictures):
            errors = [((self.painter.coded(p) / 255.0 - p / 255.0) ** 2).mean() for p in pictures]
            return round(float(np.mean(-10 * np.log10(errors))), 2)

        return {"photographs_psnr_db": psnr(self.held_out_photographs), "drawings_psnr_db": psnr(self.held_out)}

    def photographs(self):
        """The share of repainted photographs in which the probe sees the prompted look, and the probe's own."""
        names, rng = tuple(styles.WORDINGS), np.random.default_rng(7)
        probe = self.look_probe(names, PHOTO_BUCKETS)
        photographs, looks = self.held_out_photographs, [name for name in names if name != "photo"]
        real = [(styles.apply(name, p, rng), name) for p in photographs for name in names for _ in range(3)]
        begun = time.monotonic()
        painted = [(self.painter(styles.WORDINGS[name][0], p), name) for p in photographs for name in looks]
        seconds = (time.monotonic() - begun) / len(painted)
        right = {name: 0 for name in names}
        for (_, name), guess in zip(painted, probe([picture for picture, _ in painted])):
            right[name] += guess == name
        return {
            "probe_on_real_filtered_photographs": agreement(probe, real),
            "probe_on_them_encoded_and_decoded": agreement(probe, [(self.painter.coded(p), n) for p, n in real[::3]]),
            "look_agreement": agreement(probe, painted),
            "look_agreement_of_the_untouched_input": agreement(probe, [(p, n) for p in photographs for n in looks]),
            "looks_never_recognized": [name for name in looks if right[name] == 0],
            "seconds_a_picture": round(seconds, 2),
        }

    def looks(self):
        """Held-out drawings in the looks of filters: the look, and the subject among twenty drawings filtered alike.

        And looks of held-out subjects from noise: the look.
        """
        names = tuple(name for name in styles.WORDINGS if name not in styles.OF_LIGHT)
        probe, rng = self.look_probe(names, DRAWING_BUCKETS), np.random.default_rng(11)
        filtered = {name: [styles.apply(name, drawing, rng) for drawing in self.held_out] for name in names}
        real = [(picture, name) for name, pictures in filtered.items() for picture in pictures]
        restyled, untouched, found, found_untouched = [], [], [], []
        for index, drawing in enumerate(self.held_out):
            for turn in range(N_ASKED):
                name = names[(index * N_ASKED + turn) % len(names)]
                painted = self.painter(styles.WORDINGS[name][0], drawing, DRAWING_STRENGTH)
                restyled.append((painted, name))
                untouched.append((drawing, name))
                right, others = filtered[name][index], neighbors(filtered[name], index)
                found.append(self.drawing_probe.is_found(painted, right, others))
                found_untouched.append(self.drawing_probe.is_found(drawing, right, others))
        created = [
            (self.painter.created(f"{styles.WORDINGS[name][0]} of {subject}", seed=index), name)
            for name in styles.WORDINGS
            for index, (_, subject) in enumerate(self.by_subject[:N_LOOKS_FROM_NOISE])
        ]
        return {
            "probe_on_really_filtered_drawings": agreement(probe, real),
            "probe_on_them_encoded_and_decoded": agreement(probe, [(self.painter.coded(p), n) for p, n in real[::3]]),
            f"drawings_at_{DRAWING_STRENGTH}": {
                "look_agreement": agreement(probe, restyled),
                "look_agreement_of_the_untouched_input": agreement(probe, untouched),
                "subject_found_among_20": mean(found),
                "subject_found_in_the_untouched_input": mean(found_untouched),
            },
            "looks_from_noise": agreement(self.look_probe(tuple(styles.WORDINGS), PHOTO_BUCKETS), created),
        }

    def drawings(self):
        """Held-out drawings in another set's style: the set, and the subject among twenty drawings of that set."""
        probe = self.drawing_probe
        real = [(picture, name) for looks, _ in self.by_subject for name, picture in looks.items()]
        restyled, found, found_untouched = [], [], []
        for index, (looks, _) in enumerate(self.by_subject):
            for turn in range(N_ASKED):
                source, wanted = (list(looks)[(index + shift) % len(looks)] for shift in (0, turn + 1))
                painted = self.painter(sources.DRAWING_SETS[wanted][2][0], looks[source], DRAWING_STRENGTH)
                restyled.append((painted, wanted))
                others = [other[wanted] for other, _ in neighbors(self.by_subject, index) if wanted in other]
                found.append(probe.is_found(painted, looks[wanted], others))
                found_untouched.append(probe.is_found(looks[source], looks[wanted], others))
        return {
            "probe_on_real_drawings": agreement(probe.sets, real),
            "probe_on_them_encoded_and_decoded": agreement(
                probe.sets, [(self.painter.coded(picture), name) for picture, name in real]
            ),
            f"set_agreement_at_{DRAWING_STRENGTH}": agreement(probe.sets, restyled),
            "subject_found_among_20": mean(found),
            "subject_found_in_the_untouched_input": mean(found_untouched),
        }

    def created(self):
        """Prompts of a subject in a set whose drawing of it was held out: the set, and the subject among twenty."""
        probe, chosen = self.drawing_probe, self.held_out_looks[:N_CREATED]
        drawings = {name: [d for n, _, d in self.held_out_looks if n == name] for name in sources.DRAWING_SETS}
        small = {name: np.mean([shrunk(d) for d in drawings[name]], 0) for name in drawings}
        created, found, found_coded, nearest = [], [], [], []
        for index, (wanted, subject, drawing) in enumerate(chosen):
            painted = self.painter.created(f"{sources.DRAWING_SETS[wanted][2][0]} of {subject}", seed=index)
            created.append((painted, wanted))
            others = neighbors(drawings[wanted], next(i for i, d in enumerate(drawings[wanted]) if d is drawing))
            assert len(drawings[wanted]) >= N_SUBJECTS, f"there are too few held-out drawings of {wanted}"
            found.append(probe.is_found(painted, drawing, others))
            found_coded.append(probe.is_found(self.painter.coded(drawing), drawing, others))
            likeness = [correlation(painted, other, small[wanted]) for other in (drawing, *others)]
            nearest.append(likeness[0] == max(likeness))
        return {
            "n_prompts": len(chosen),
            "probe_on_the_held_out_drawings": agreement(probe.sets, [(d, name) for name, _, d in chosen]),
            "set_agreement": agreement(probe.sets, created),
            "subject_found_among_20": mean(found),
            "subject_found_in_the_coded_drawing": mean(found_coded),
            f"nearest_among_20_by_{SHRUNK_SIDE}_pixels": mean(nearest),
        }

    def strength(self):
        """The share of inputs whose mean distance to the results grows at every step of `STRENGTHS`."""
        distances, prompts = [], [prompt for row in sheets.PHOTOGRAPH_PROMPTS[:2] for prompt in row]
        for index, picture in enumerate(self.held_out_photographs + self.held_out):
            prompt = prompts[index % len(prompts)]
            distances.append(
                [
                    np.mean(
                        [distance(self.painter(prompt, picture, s, seed), picture) for seed in range(N_STRENGTH_SEEDS)]
                    )
                    for s in STRENGTHS
                ]
            )
        return {
            "n_inputs": len(distances),
            "distance_grows_at_every_strength": mean(
                [all(a < b for a, b in itertools.pairwise(row)) for row in distances]
            ),
            "distance_grows_overall": mean([row[-1] > row[0] for row in distances]),
            "distance_by_strength": dict(zip(map(str, STRENGTHS), np.mean(distances, 0).round(3).tolist())),
        }

    def edges(self):
        """Of the photograph's edges, those that the painted picture has within two pixels.

        For comparison those that the model without control keeps at the same strength, and those of another photograph.
        """
        if self.canny is None:
            return None
        probe, photographs = self.look_probe(tuple(styles.WORDINGS), PHOTO_BUCKETS), self.held_out_photographs
        names = {wordings[0]: name for name, wordings in styles.WORDINGS.items()}
        figures = {}
        for strength in sheets.CANNY_STRENGTHS:
            kept, without, chance, painted = [], [], [], []
            for index, photograph in enumerate(photographs):
                for prompt in sheets.CANNY_PROMPTS:
                    result = self.canny(prompt, photograph, strength)
                    painted.append((result, names[prompt]))
                    kept.append(edges_kept(photograph, result))
                    without.append(edges_kept(photograph, self.painter(prompt, photograph, strength)))
                    chance.append(edges_kept(photographs[index - 1], result))
            figures[f"canny_at_{strength}"] = {
                "edges_kept": mean(kept),
                "edges_kept_without_control": mean(without),
                "edges_of_another_photograph": mean(chance),
                "look_agreement": agreement(probe, painted),
            }
        return figures


def mean(values):
    return round(float(np.mean(values)), 3)


def agreement(probe, labelled):
    """The share of `(picture, name)` in which the probe sees what it is named."""
    guesses = probe([picture for picture, _ in labelled])
    return mean([guess == name for guess, (_, name) in zip(guesses, labelled)])


def neighbors(subjects, index):
    """So many other subjects that there are `N_SUBJECTS` with this one."""
    return [subjects[(index + 1 + offset) % len(subjects)] for offset in range(N_SUBJECTS - 1)]


def shrunk(picture):
    return cv2.resize(picture, (SHRUNK_SIDE, SHRUNK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def correlation(painted, picture, usual):
    """Of small copies less what is `usual`: how alike outlines and colors are, whatever the details."""
    painted, picture = ((shrunk(part) - usual).ravel() for part in (painted, picture))
    return float(painted @ picture / (np.linalg.norm(painted) * np.linalg.norm(picture) + 1e-6))


def distance(painted, picture):
    """The root mean square difference, pixels in 0..1."""
    return float(np.sqrt(((painted / 255.0 - picture / 255.0) ** 2).mean()))


def edges_kept(control, painted):
    wanted = edges(control)[..., 0] > 0
    there = cv2.dilate(edges(painted)[..., 0], np.ones((5, 5), np.uint8)) > 0
    return float((wanted & there).sum() / max(wanted.sum(), 1))


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
    """Subjects never trained on, `({set: picture}, label)` each; and of others drawings never trained on.

    Drawings of the first lie anywhere on a ground of some color, `(set, label, picture)` of the second in the middle of
    a white one.
    """
    records = json.loads((cache / "pictures/held-out-drawings.json").read_text())
    pictures = np.load(cache / "pictures/held-out-drawings.npy", mmap_mode="r")
    subjects = {}
    for index, record in enumerate(records):
        if record["style"] in sources.DRAWING_SETS:
            looks, _ = subjects.setdefault(record["group"], ({}, record["subjects"][0]))
            looks[record["style"]] = np.asarray(pictures[index])
    drawings = np.load(cache / "pictures/drawings.npy", mmap_mode="r")
    looks = [
        (record["style"], record["subjects"][0], prepare.in_the_middle(drawings[index], prepare.BACKGROUNDS["white"]))
        for index, record in enumerate(json.loads((cache / "pictures/drawings.json").read_text()))
        if record["held_out"] and not prepare.is_held_out(record["key"])
    ]
    return list(subjects.values()), looks


if __name__ == "__main__":
    main()

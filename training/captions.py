"""Prompts for the training pictures, written from what is known of each: its style, subject and background."""

import styles
from sources import DRAWING_SETS

# Styles whose words follow the subject ("a cat at night") rather than lead it ("pencil sketch of a cat").
TRAILING = {"night", "sunset", "winter", "autumn"}


def wordings(style):
    return styles.WORDINGS[style] if style in styles.WORDINGS else DRAWING_SETS[style][2]


def write(picture, rng, restyled=False):
    """One prompt for `picture`, a record with `style`, `subjects` and, for drawings, `background`.

    One that is `restyled` from another often goes without its subject, which everybody can see.
    """
    style = _pick(_weighted(wordings(picture["style"])), rng)
    look = picture.get("look")
    if look:
        style = f"{style}, {_pick(wordings(look), rng)}" if rng.random() < 0.3 else style
    subject = _pick(_weighted(picture["subjects"]), rng)
    background = f"{picture['background']} background" if picture.get("background") else ""
    if rng.random() < (0.45 if restyled else 0.04):
        subject = ""
    # Nobody says that a ground is white.
    if rng.random() < (0.9 if picture.get("background") == "white" else 0.3 if restyled else 0.15):
        background = ""
    prompt = _compose(style, subject, background, picture["style"] in TRAILING, rng)
    return prompt[0].upper() + prompt[1:] if rng.random() < 0.15 else prompt


def _compose(style, subject, background, trailing, rng):
    if not subject:
        parts = [style, background]
    elif trailing:
        parts = [f"{_article(subject, rng)} {style}", background]
    elif rng.random() < 0.6:
        joined = f"{style} of {_article(subject, rng)}"
        if background and rng.random() < 0.7:
            return f"{joined} on a {background}"
        parts = [joined, background]
    else:
        parts = [_article(subject, rng), style, background]
    return ", ".join(part for part in parts if part)


def _article(subject, rng):
    if rng.random() < 0.4:
        return subject
    return f"an {subject}" if subject[0] in "aeiou" else f"a {subject}"


def _weighted(choices):
    """The first choice twice as often as all the others together."""
    return choices[:1] * max(2 * len(choices) - 2, 1) + choices[1:]


def _pick(choices, rng):
    return choices[rng.integers(len(choices))]

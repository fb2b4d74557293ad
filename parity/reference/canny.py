"""Records what OpenCV's Canny finds on small pictures: photographs, noise, slopes, text, lines at the border, slivers."""

import json
from pathlib import Path

import cv2
import numpy as np
from skimage import data

# (low, high, aperture, whether the gradient's length is Euclidean)
PLAIN = (50, 200, 3, False)
SETTINGS = [
    PLAIN, (50, 200, 3, True), (100, 100, 3, False), (200, 50, 3, False), (0, 0, 3, False), (-1, 30, 3, True),
    (99.5, 250.25, 3, True), (800, 2000, 5, False), (700.5, 1500, 5, True), (2000, 6000, 7, False), (1500, 4000, 7, True),
]  # fmt: skip


def record_canny(folder: Path) -> None:
    """`cases.json` names an input, the settings and the result; pictures are RGB, as the preprocessors pass them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    cases = []
    for name, picture in pictures().items():
        write(folder / f"{name}.png", picture[..., ::-1])
        thorough = min(picture.shape[:2]) > 30
        for idx, (low, high, aperture, euclidean) in enumerate(SETTINGS if thorough else [PLAIN, SETTINGS[1]]):
            edges = cv2.Canny(picture, low, high, apertureSize=aperture, L2gradient=euclidean)
            result = f"{name}.edges{idx}.png"
            write(folder / result, edges)
            norm = "l2" if euclidean else "l1"
            cases.append({
                "source": f"{name}.png", "result": result, "low": low, "high": high, "aperture": aperture, "norm": norm,
            })  # fmt: skip
    (folder / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def pictures() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    noise = random.integers(0, 256, (47, 61, 3), dtype=np.uint8)
    faint = random.integers(96, 160, (40, 72, 3), dtype=np.uint8)
    found = {
        "astronaut_128x128": cv2.resize(data.astronaut(), (128, 128), interpolation=cv2.INTER_AREA),
        "coffee_150x97": cv2.resize(data.coffee(), (150, 97), interpolation=cv2.INTER_AREA),
        "camera_101x99": gray(cv2.resize(data.camera(), (101, 99), interpolation=cv2.INTER_AREA)),
        "noise_61x47": noise,
        "faint_72x40": faint,
        "slopes_64x48": slopes(),
        "lines_48x40": lines(),
        "text_120x40": text(),
    }
    for height, width in ((1, 1), (1, 2), (2, 1), (2, 2), (1, 7), (9, 1), (3, 3), (2, 17), (19, 2), (3, 33)):
        found[f"sliver_{width}x{height}"] = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return found


def slopes() -> np.ndarray:
    """Ramps in every direction and channel, with plateaus where neighbors are equally strong."""
    y, x = np.mgrid[0:48, 0:64]
    red = np.where(x < 32, 4 * x, 255 - 3 * (x - 32))
    green = np.clip(8 * (x + y - 50), 0, 255)
    blue = np.clip(255 - 6 * np.hypot(x - 40, y - 20), 0, 255)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def lines() -> np.ndarray:
    """Thin lines along the borders and through the corners, one color each."""
    picture = np.zeros((40, 48, 3), dtype=np.uint8)
    picture[0, :, 0] = 255
    picture[:, 0, 1] = 180
    picture[-1, 5:30, 2] = 255
    picture[10:38, -1] = 255
    picture[np.arange(40), np.arange(40)] = (255, 255, 0)
    picture[np.arange(40), 47 - np.arange(40)] = (0, 90, 90)
    picture[20, 20:24] = 60
    return picture


def text() -> np.ndarray:
    picture = np.full((40, 120, 3), (250, 245, 230), dtype=np.uint8)
    cv2.putText(picture, "Edges 0189", (4, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30, 20, 90), 1, cv2.LINE_AA)
    return picture


def gray(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=-1)


def write(path: Path, picture: np.ndarray) -> None:
    """OpenCV's own order of channels is BGR."""
    assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])

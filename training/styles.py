"""Classical picture filters: each turns a photograph or a drawing into one unmistakable look.

The model learns these looks from pairs (picture, filtered picture), so a filter here is the definition of a style word.
Every filter takes and returns an RGB array, `uint8`, `(height, width, 3)`, and a random generator for its own variety.
Lengths are meant for pictures about 256 pixels tall and scale with the `unit` argument (1.0 at 256, 0.5 at 128).
"""

import cv2
import numpy as np

# Each style's first wording is the one that documentation and evaluation use.
WORDINGS = {
    "photo": ["photograph", "photo", "realistic photo"],
    "pencil": ["pencil sketch", "pencil drawing", "graphite sketch", "hand drawn sketch"],
    "charcoal": ["charcoal drawing", "charcoal sketch"],
    "ink": ["ink drawing", "line art", "black and white line drawing", "pen and ink"],
    "watercolor": ["watercolour painting", "watercolor painting", "watercolor", "watercolour", "aquarelle"],
    "oil": ["oil painting", "oil on canvas", "thick brush strokes", "impressionist painting"],
    "comic": ["comic", "comic book style", "cartoon", "comic panel"],
    "popart": ["pop art", "screen print", "pop art poster"],
    "poster": ["vintage poster", "retro poster", "flat travel poster"],
    "mosaic": ["mosaic", "mosaic tiles", "tile mosaic"],
    "glass": ["stained glass", "stained glass window"],
    "pixel": ["pixel art", "8-bit pixel art", "retro game sprite"],
    "lowpoly": ["low poly", "low poly art", "polygon art"],
    "dots": ["pointillism", "pointillist painting", "painted with dots"],
    "sepia": ["sepia photograph", "old sepia photo", "vintage photo"],
    "mono": ["black and white photograph", "black and white photo", "monochrome"],
    "night": ["at night", "night scene", "moonlight"],
    "sunset": ["at sunset", "sunset light", "golden hour", "warm colors"],
    "winter": ["in winter", "snow", "winter scene with snow"],
    "autumn": ["in autumn", "autumn colors"],
    "neon": ["neon lights", "cyberpunk neon", "glowing neon lines"],
    "blueprint": ["blueprint", "technical blueprint"],
    "chalk": ["chalk drawing on a blackboard", "chalkboard drawing"],
    "thermal": ["thermal camera", "heat map"],
    "pastel": ["pastel drawing", "soft pastel colors"],
}


def apply(style, picture, rng, unit=1.0):
    """Filters `picture` in `style`; an unknown style is a `KeyError`."""
    return FILTERS[style](picture, rng, unit)


def _gray(picture):
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _float(picture):
    return picture.astype(np.float32) / 255


def _bytes(picture):
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _on_paper(ink, paper, pigment):
    """Mixes two colors: `ink` is 0 where the paper shows and 1 where the pigment covers it."""
    ink = np.clip(ink, 0, 1)[..., None]
    return _bytes(np.float32(paper) * (1 - ink) + np.float32(pigment) * ink)


def _blur(picture, sigma):
    return cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.3))


def _noise(shape, sigma, rng):
    """Smooth noise of unit variance, one value a pixel."""
    noise = _blur(rng.standard_normal(shape).astype(np.float32), sigma)
    return noise / (noise.std() + 1e-6)


def _saturate(picture, factor):
    gray = picture.mean(2, keepdims=True)
    return gray + (picture - gray) * factor


def _stretch(gray):
    """Spreads a gray picture over the whole range, so that flat photographs also give strong drawings."""
    low, high = (float(level) for level in np.percentile(gray, [2, 98]))
    return np.clip((gray.astype(np.float32) - low) / max(high - low, 24), 0, 1)


def _lines(picture, unit, width=1.0, gain=12.0):
    """Dark outlines as a map from 0 (none) to 1, from a difference of Gaussians."""
    gray = _float(_gray(cv2.bilateralFilter(picture, 5, 40, 3)))
    fine, coarse = _blur(gray, 0.9 * width * unit + 0.3), _blur(gray, 2.2 * width * unit + 0.5)
    return np.clip((coarse - fine) * gain - 0.12, 0, 1)


def _smooth(picture, rounds=3):
    for _ in range(rounds):
        picture = cv2.bilateralFilter(picture, 7, 45, 7)
    return picture


def _quantize(picture, n_colors, rng):
    """Replaces the colors by the `n_colors` means that fit them best."""
    pixels = np.float32(picture.reshape(-1, 3))
    sample = pixels[rng.integers(len(pixels), size=min(len(pixels), 1500))]
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    centers = cv2.kmeans(sample, n_colors, None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]
    distance = (pixels**2).sum(1)[:, None] - 2 * pixels @ centers.T + (centers**2).sum(1)
    return centers[distance.argmin(1)].reshape(picture.shape)


def _cells(shape, size, rng, jitter=0.5):
    """A jittered grid's Voronoi cells: the index of each pixel's cell and its distance to the cell's border."""
    height, width = shape
    rows, columns = int(np.ceil(height / size)) + 1, int(np.ceil(width / size)) + 1
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    y, x = [(axis + jitter * (rng.random(axis.shape) - 0.5)) * size for axis in (y, x)]
    points = np.stack([x.ravel(), y.ravel()], 1)
    py, px = np.mgrid[:height, :width].astype(np.float32)
    row, column = np.round(py / size).astype(int), np.round(px / size).astype(int)
    nearest, second = np.full(shape, 1e9, np.float32), np.full(shape, 1e9, np.float32)
    index = np.zeros(shape, np.int64)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            candidate = np.clip(row + dr, 0, rows - 1) * columns + np.clip(column + dc, 0, columns - 1)
            distance = np.hypot(px - points[candidate, 0], py - points[candidate, 1])
            closer = distance < nearest
            same = candidate == index
            second = np.where(
                closer, np.where(same, second, nearest), np.where(same, second, np.minimum(second, distance))
            )
            index = np.where(closer, candidate, index)
            nearest = np.where(closer, distance, nearest)
    return index, (second - nearest) / 2


def _cell_colors(picture, index):
    flat, n_cells = index.ravel(), index.max() + 1
    count = np.maximum(np.bincount(flat, minlength=n_cells), 1)
    means = np.stack([np.bincount(flat, picture[..., c].ravel(), n_cells) / count for c in range(3)], 1)
    return means[index].astype(np.float32)


def photo(picture, rng, unit):
    return picture


def pencil(picture, rng, unit):
    gray = _stretch(_gray(picture))
    dodge = np.clip(gray / (_blur(gray, 7 * unit) + 0.02), 0, 1) ** 3.0
    hatch = 0.5 + 0.22 * cv2.filter2D(
        rng.standard_normal(gray.shape).astype(np.float32), -1, np.eye(7, dtype=np.float32)[::-1] / 2.6
    )
    shade = np.clip(0.72 - gray, 0, 1) * hatch * 1.15
    return _on_paper((1 - dodge) * 0.95 + shade, (0.98, 0.975, 0.96), (0.2, 0.2, 0.22))


def charcoal(picture, rng, unit):
    gray = _blur(_stretch(_gray(picture)), 1.6 * unit)
    grain = 0.09 * _noise(gray.shape, 0.7, rng)
    dark = np.clip(1.15 - 1.5 * gray, 0, 1) + 1.2 * _lines(picture, unit, 2.0) + grain
    return _on_paper(np.round(np.clip(dark, 0, 1) * 5) / 5, (0.9, 0.87, 0.82), (0.08, 0.07, 0.07))


def ink(picture, rng, unit):
    gray = _blur(_stretch(_gray(picture)), 0.8 * unit)
    solid = np.clip((0.22 - gray) * 14, 0, 1)
    return _on_paper(np.maximum(np.clip(_lines(picture, unit, 1.3, 22), 0, 1), solid), (1, 1, 1), (0.03, 0.03, 0.05))


def watercolor(picture, rng, unit):
    smooth = _float(_smooth(picture, 3))
    wash = 1 - (1 - _saturate(smooth, 1.7)) * 0.78
    shape = wash.shape[:2]
    bleed = 1 + 0.07 * _noise(shape, 9 * unit, rng)[..., None]
    edge = np.abs(cv2.Laplacian(_blur(_float(_gray(picture)), 2 * unit), cv2.CV_32F))[..., None]
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    border = np.maximum(np.abs(y), np.abs(x)) + 0.025 * _noise(shape, 8 * unit, rng)
    paper = np.clip((border - 0.93) * 16, 0, 1)[..., None]
    return _bytes((wash * bleed - 1.6 * edge) * (1 - paper) + np.float32((0.99, 0.98, 0.95)) * paper)


def oil(picture, rng, unit):
    """A Kuwahara filter: each pixel takes the mean of the calmest of four quadrants, which looks like brush strokes."""
    radius = max(int(round(5 * unit)), 2)
    source = _float(picture)
    square = cv2.blur(source**2, (radius, radius))
    mean = cv2.blur(source, (radius, radius))
    spread = (square - mean**2).sum(2)
    shift = max(radius // 2, 1)
    best, result = np.full(spread.shape, 1e9, np.float32), mean
    for dy in (-shift, shift):
        for dx in (-shift, shift):
            moved = np.roll(spread, (dy, dx), (0, 1))
            calmer = moved < best
            best = np.where(calmer, moved, best)
            result = np.where(calmer[..., None], np.roll(mean, (dy, dx), (0, 1)), result)
    bristle = 0.05 * cv2.filter2D(
        rng.standard_normal(spread.shape).astype(np.float32), -1, np.eye(9, dtype=np.float32) / 3
    )
    return _bytes(np.clip((_saturate(result, 1.6) - 0.5) * 1.15 + 0.48, 0, 1) + bristle[..., None])


def comic(picture, rng, unit):
    smooth = _float(_smooth(picture, 3))
    flat = np.round(np.clip((_saturate(smooth, 1.7) - 0.5) * 1.25 + 0.55, 0, 1) * 3.5) / 3.5
    return _bytes(flat * (1 - _lines(picture, unit, 1.5, 26)[..., None]))


def popart(picture, rng, unit):
    """Four flat inks. One palette for all: of several, a model paints the mean until it has seen far more pictures."""
    inks = np.float32(((0.15, 0.05, 0.35), (0.9, 0.1, 0.45), (1.0, 0.8, 0.1), (0.98, 0.97, 0.85)))
    gray = _blur(_stretch(_gray(_smooth(picture, 2))), 1.2 * unit)
    return _bytes(inks[np.clip((gray * 4).astype(int), 0, 3)])


def poster(picture, rng, unit):
    inks = np.float32(
        ((0.13, 0.2, 0.27), (0.16, 0.42, 0.45), (0.83, 0.36, 0.22), (0.93, 0.68, 0.35), (0.97, 0.91, 0.78))
    )
    gray = _blur(_stretch(_gray(_smooth(picture, 3))), 1.8 * unit)
    return _bytes(inks[np.clip((gray * 5).astype(int), 0, 4)])


def mosaic(picture, rng, unit):
    """Square tiles of 12 pixels; at 8 they would lie on the autoencoder's grid, whose decoder sees all cells alike."""
    tile, (height, width) = 12, picture.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(_float(picture), ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), "edge")
    tiles = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    tiles = _saturate(tiles, 1.5) * (1 + 0.2 * (rng.random(tiles.shape[:2] + (1,)) - 0.5))
    tiles = cv2.resize(np.float32(tiles), (columns * tile, rows * tile), interpolation=cv2.INTER_NEAREST)[
        :height, :width
    ]
    row, column = np.mgrid[:height, :width] % tile
    bevel = 0.1 * ((row <= 3) | (column <= 3)) - 0.12 * ((row >= tile - 2) | (column >= tile - 2))
    grout = ((row <= 1) | (column <= 1))[..., None]
    return _bytes(np.where(grout, 0.88, tiles + bevel[..., None]))


def glass(picture, rng, unit):
    index, border = _cells(picture.shape[:2], 15 * unit + 3, rng, 0.9)
    panes = _cell_colors(_float(picture), index)
    panes = np.clip(_saturate(panes, 2.3) * 1.15 + 0.06, 0, 1) * (0.92 + 0.08 * _noise(border.shape, 3, rng)[..., None])
    lead = np.clip(1.9 - border, 0, 1)[..., None]
    return _bytes(panes * (1 - lead) + 0.05 * lead)


def pixel(picture, rng, unit):
    height, width = picture.shape[:2]
    block = 8
    small = cv2.resize(picture, (max(width // block, 1), max(height // block, 1)), interpolation=cv2.INTER_AREA)
    small = _bytes(np.clip((_saturate(_float(small), 1.4) - 0.5) * 1.2 + 0.5, 0, 1))
    colors = _quantize(small, 14, rng)
    return cv2.resize(np.uint8(np.clip(colors, 0, 255)), (width, height), interpolation=cv2.INTER_NEAREST)


def lowpoly(picture, rng, unit):
    height, width = picture.shape[:2]
    edges = _lines(picture, unit, 2, 20) + np.abs(cv2.Laplacian(_blur(_float(_gray(picture)), 1.5), cv2.CV_32F)) + 0.01
    chance = (edges / edges.sum()).ravel()
    spots = rng.choice(height * width, 110, p=chance)
    grid = np.stack(np.meshgrid(np.linspace(0, width - 1, 8), np.linspace(0, height - 1, 8)), -1).reshape(-1, 2)
    points = np.concatenate(
        [
            np.stack([spots % width, spots // width], 1),
            grid + rng.normal(0, 4 * unit, grid.shape),
            [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]],
        ]
    )
    points = np.clip(points, 0, [width - 1, height - 1])
    division = cv2.Subdiv2D((0, 0, width, height))
    division.insert([(float(x), float(y)) for x, y in points])
    source, result = _blur(picture, 1), _blur(picture, 6)
    for triangle in division.getTriangleList().reshape(-1, 3, 2):
        corner = np.round(triangle).astype(np.int32)
        if (corner < 0).any() or (corner >= (width, height)).any():
            continue
        inside = np.concatenate([(2 * corner + corner.mean(0)) / 3, corner.mean(0, keepdims=True)]).astype(int)
        color = _saturate(source[inside[:, 1], inside[:, 0]].mean(0)[None, None] / 255, 1.3)[0, 0]
        cv2.fillConvexPoly(result, corner, [int(c) for c in np.clip(color * 255, 0, 255)])
    return result


def dots(picture, rng, unit):
    index, _ = _cells(picture.shape[:2], 5 * unit + 2, rng, 0.9)
    colors = _saturate(_cell_colors(_float(picture), index), 2.0)
    colors = colors + 0.08 * rng.standard_normal((index.max() + 1, 3))[index]
    return _bytes(_blur(np.float32(colors), 0.5) * 1.05 + 0.04)


def sepia(picture, rng, unit):
    gray = _stretch(_gray(picture))
    y, x = np.mgrid[-1 : 1 : gray.shape[0] * 1j, -1 : 1 : gray.shape[1] * 1j]
    vignette = 1 - 0.28 * np.clip(np.hypot(y, x) - 0.4, 0, 1)
    tone = 0.12 + 0.8 * gray * vignette
    return _bytes(tone[..., None] ** np.float32((0.72, 1.0, 1.55)))


def mono(picture, rng, unit):
    return np.repeat(_bytes(_stretch(_gray(picture)))[..., None], 3, 2)


def night(picture, rng, unit):
    gray = _float(picture).mean(2, keepdims=True)
    moonlit = (0.35 * _float(picture) + 0.65 * gray) * np.float32((0.3, 0.42, 0.78))
    return _bytes(moonlit + np.clip(gray - 0.75, 0, 1) * np.float32((0.5, 0.55, 0.4)) + np.float32((0.0, 0.01, 0.05)))


def sunset(picture, rng, unit):
    source = _float(picture)
    fade = np.linspace(0, 1, source.shape[0], dtype=np.float32)[:, None, None]
    light = np.float32((1.0, 0.45, 0.5)) * (1 - fade) + np.float32((1.0, 0.72, 0.25)) * fade
    return _bytes((0.25 * source + 0.75 * source.mean(2, keepdims=True)) * light * 1.1 + 0.16 * light - 0.03)


def winter(picture, rng, unit):
    source = _float(picture)
    gray = source.mean(2, keepdims=True)
    pale = (0.2 * source + 0.8 * gray) * np.float32((0.62, 0.7, 0.8)) + np.float32((0.3, 0.33, 0.36))
    flakes = np.zeros(gray.shape[:2], np.float32)
    n_flakes = int(gray.size / 550)
    flakes[rng.integers(gray.shape[0], size=n_flakes), rng.integers(gray.shape[1], size=n_flakes)] = 1
    flakes = np.clip(_blur(flakes, 1.2 * unit + 0.4) * 9, 0, 1)[..., None]
    return _bytes(pale * (1 - flakes) + flakes)


def autumn(picture, rng, unit):
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.float32)
    hue = hsv[..., 0]
    warm = (hue > 15) & (hue < 95)
    hsv[..., 0] = np.where(warm, 6 + (hue - 15) * 0.17, hue)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.where(warm, 1.5, 0.8) + 18, 0, 255)
    shifted = _float(cv2.cvtColor(np.uint8(hsv), cv2.COLOR_HSV2RGB))
    return _bytes(shifted * np.float32((1.1, 0.86, 0.58)) + np.float32((0.08, 0.03, 0.0)))


def neon(picture, rng, unit):
    gray = _blur(_float(_gray(_smooth(picture, 2))), 1.2 * unit)
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    strength = np.clip(np.hypot(dx, dy) * 2.4, 0, 1)
    mix = np.clip(_blur(_float(picture)[..., 0] - _float(picture)[..., 2], 6 * unit) * 2.5 + 0.5, 0, 1)[..., None]
    color = np.float32((0.05, 0.9, 1.0)) * (1 - mix) + np.float32((1.0, 0.1, 0.75)) * mix
    glow = strength[..., None] + 0.9 * _blur(strength, 5 * unit)[..., None]
    return _bytes(color * glow + np.float32((0.05, 0.02, 0.12)) + 0.10 * _float(picture))


def blueprint(picture, rng, unit):
    lines = np.maximum(_lines(picture, unit, 1.2, 22), 0.25 * (1 - _stretch(_gray(picture))) ** 2)
    grid = np.zeros(lines.shape, np.float32)
    grid[::16], grid[:, ::16] = 0.16, 0.16
    return _on_paper(np.maximum(lines, grid), (0.05, 0.22, 0.55), (0.92, 0.96, 1.0))


def chalk(picture, rng, unit):
    gray = _stretch(_gray(picture))
    lines = _lines(picture, unit, 1.8, 20) + np.clip(
        np.abs(cv2.Laplacian(_blur(gray, 1.5 * unit), cv2.CV_32F)) * 6 - 0.15, 0, 1
    )
    grain = 0.75 + 0.3 * _noise(gray.shape, 0.6, rng)
    return _on_paper((lines + 0.42 * gray**2) * grain, (0.12, 0.2, 0.17), (0.95, 0.96, 0.92))


def thermal(picture, rng, unit):
    gray = _bytes(_blur(_stretch(_gray(picture)), 1.5 * unit))
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def pastel(picture, rng, unit):
    soft = _saturate(_float(_smooth(picture, 2)), 1.1) * 0.55 + 0.43
    grain = 0.05 * cv2.filter2D(
        rng.standard_normal(soft.shape[:2]).astype(np.float32), -1, np.eye(5, dtype=np.float32) / 2
    )
    return _bytes(soft + grain[..., None])


FILTERS = {name: globals()[name] for name in WORDINGS}

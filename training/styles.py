"""Classical picture filters: each turns a photograph or a drawing into one unmistakable look.

The model learns these looks from pairs (picture, filtered picture), so a filter here is the definition of a style word.
Every filter takes and returns an RGB array, `uint8`, `(height, width, 3)`, and a random generator for its own variety.
Lengths are meant for pictures about 256 pixels tall and scale with the `unit` argument (1.0 at 256, 0.5 at 128).
"""

import functools

import cv2
import numpy as np

# Strokes, dots, tiles and panes repeat after this many pixels at most, three image tokens: patterns that lie at random
# cannot be predicted, and a model that has seen few of them paints their mean. Crops in training lie on this grid too.
PERIOD = 48

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
# Looks that change what light falls on a scene; a drawing on a plain ground has none.
OF_LIGHT = ("photo", "mono", "sepia", "night", "sunset", "winter", "autumn")


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


def _stripes(shape, period, slope):
    """Diagonal strokes, 1 at their middle and 0 between them, `period` pixels apart along a row."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.float32(0.5 + 0.5 * np.cos((x + slope * y) * 2 * np.pi / period))


def _in_turns(shape, pitch):
    """Places `pitch` pixels apart, as y and x, every second row and column first, so that neighbors overlap all round."""
    begin = pitch // 2
    for down, right in np.ndindex(2, 2):
        for y in range(begin + pitch * down, shape[0] + pitch, 2 * pitch):
            for x in range(begin + pitch * right, shape[1] + pitch, 2 * pitch):
                yield y, x


def _lattice(shape, pitch):
    """Dots in rows, every second one shifted by half: distance to the nearest, which it is, and whether that is even."""
    best, index, even = np.full(shape, 1e9, np.float32), np.zeros(shape, np.int64), np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    columns = shape[1] // pitch + 3
    for step in (0, 1):
        row = (np.floor(y / pitch) + step).astype(np.int64)
        shift = 0.5 * (row % 2)
        column = np.round(x / pitch - shift).astype(np.int64)
        distance = np.hypot(x - (column + shift) * pitch, y - row * pitch)
        closer = distance < best
        best = np.where(closer, distance, best)
        index = np.where(closer, row * columns + column + 1, index)
        even = np.where(closer, (column + row // 2) % 2 == 0, even)
    return best, index, even


@functools.cache
def _points(shape, jitter):
    """A grid of `PERIOD / 3` pixels, jittered alike in every period: `(rows, columns, 2)`, y and x, beyond the border."""
    size = PERIOD // 3
    offsets = np.random.default_rng(3).random((3, 3, 2)) - 0.5
    rows, columns = (length // size + 4 for length in shape)
    row, column = np.mgrid[-1 : rows - 1, -1 : columns - 1]
    return np.float32((np.stack([row, column], -1) + 0.5 + jitter * offsets[row % 3, column % 3]) * size)


@functools.cache
def _cells(shape, jitter):
    """The Voronoi cells of `_points`: the index of each pixel's cell and its distance to the cell's border."""
    points = _points(shape, jitter).reshape(-1, 2)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    nearest, second = np.full(shape, 1e9, np.float32), np.full(shape, 1e9, np.float32)
    index = np.zeros(shape, np.int64)
    for candidate, (py, px) in enumerate(points):
        distance = np.hypot(y - py, x - px)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        index = np.where(closer, candidate, index)
        nearest = np.where(closer, distance, nearest)
    return index, (second - nearest) / 2


@functools.cache
def _triangles(shape):
    """The grid of `_points`, its squares cut in two: each pixel's triangle, and each triangle's light, -1 to 1."""
    points = _points(shape, 0.75)
    index = np.zeros(shape, np.int32)
    light = [0.0]
    for row, column in np.ndindex(points.shape[0] - 1, points.shape[1] - 1):
        a, b, c, d = (points[row + down, column + right] for down, right in ((0, 0), (0, 1), (1, 1), (1, 0)))
        for triangle in ((a, b, c), (a, c, d)) if (row + column) % 2 else ((a, b, d), (b, c, d)):
            corners = np.round(np.float32(triangle)[:, ::-1]).astype(np.int32)
            cv2.fillConvexPoly(index, corners, len(light))
            middle = np.mean(triangle, 0) - (a + b + c + d) / 4
            light.append(float(-(middle[0] + 0.5 * middle[1]) / np.hypot(*middle)) / 1.12)
    return index, np.float32(light)


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
    tone = _blur(gray, 2 * unit)
    hatching = 0.55 * _stripes(gray.shape, 12, 1) * np.clip((0.62 - tone) * 4, 0, 1)
    crossing = 0.55 * _stripes(gray.shape, 12, -1) * np.clip((0.3 - tone) * 5, 0, 1)
    return _on_paper((1 - dodge) * 0.95 + hatching + crossing, (0.98, 0.975, 0.96), (0.2, 0.2, 0.22))


def charcoal(picture, rng, unit):
    """Black and a little white on brown paper."""
    gray = _blur(_stretch(_gray(picture)), 1.6 * unit)
    dark = np.clip(1.25 - 2.1 * gray, 0, 1) + 1.2 * _lines(picture, unit, 2.0)
    paper = _on_paper(dark * (0.8 + 0.3 * _stripes(gray.shape, 16, -1)), (0.74, 0.63, 0.5), (0.07, 0.06, 0.06))
    return _on_paper(np.clip(gray - 0.72, 0, 1) * 3.2, _float(paper), (0.97, 0.95, 0.9))


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
    """Strokes of one color each, laid along the contours in a fixed order, with a lit edge and a shaded one."""
    source = _saturate(_blur(_float(picture), 2.2 * unit), 1.7) * 1.1 - 0.03
    gray = _blur(_float(_gray(picture)), 3 * unit)
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    across, along = _blur(dx * dx - dy * dy, 5 * unit), _blur(2 * dx * dy, 5 * unit)
    # The structure tensor's direction along contours; strokes lean where nothing has a direction.
    angle = 0.5 * np.degrees(np.arctan2(along + 1e-4, across - 1e-4)) + 90
    canvas = np.ascontiguousarray(np.clip(source, 0, 1))
    for pitch, length, thickness in ((12, 22.0, 12.0), (8, 14.0, 6.0)):
        for y, x in _in_turns(gray.shape, pitch):
            at = min(y, gray.shape[0] - 1), min(x, gray.shape[1] - 1)
            lean = float(angle[at])
            aside = np.float32((-np.sin(np.radians(lean)), np.cos(np.radians(lean)))) * 1.3
            for side, light in ((-1, 0.75), (1, 1.2), (0, 1.0)):
                center = (x + side * float(aside[0]), y + side * float(aside[1]))
                color = np.clip(source[at] * light, 0, 1).tolist()
                cv2.ellipse(canvas, (center, (length, thickness), lean), color, -1)
    return _bytes(canvas)


def comic(picture, rng, unit):
    """Flat colors under thick outlines, with printed dots in the shade."""
    smooth = _float(_smooth(picture, 3))
    flat = np.round(np.clip((_saturate(smooth, 1.9) - 0.5) * 1.25 + 0.6, 0, 1) * 3) / 3
    shade = np.clip((0.6 - _stretch(_gray(picture))) * 3, 0, 1)
    dots = np.clip(1.3 * shade - _lattice(shade.shape, 8)[0] / 5 + 0.35, 0, 1) * (shade > 0.05)
    return _bytes(flat * (1 - 0.55 * dots[..., None]) * (1 - np.clip(_lines(picture, unit, 2.0, 30), 0, 1)[..., None]))


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
    index, border = _cells(picture.shape[:2], 0.9)
    panes = np.clip(_saturate(_cell_colors(_float(picture), index), 2.4) * 1.2 + 0.06, 0, 1)
    lead = np.maximum(np.clip(1.9 - border, 0, 1), _lines(picture, unit, 2.0, 20))[..., None]
    return _bytes(panes * (1 - lead) + 0.04 * lead)


def pixel(picture, rng, unit):
    height, width = picture.shape[:2]
    block = 8
    small = cv2.resize(picture, (max(width // block, 1), max(height // block, 1)), interpolation=cv2.INTER_AREA)
    small = _bytes(np.clip((_saturate(_float(small), 1.4) - 0.5) * 1.2 + 0.5, 0, 1))
    colors = _quantize(small, 14, rng)
    return cv2.resize(np.uint8(np.clip(colors, 0, 255)), (width, height), interpolation=cv2.INTER_NEAREST)


def lowpoly(picture, rng, unit):
    """Triangles between the points of a jittered grid, each of one color and lit from its own side."""
    index, light = _triangles(picture.shape[:2])
    facets = _saturate(_cell_colors(_blur(_float(picture), 1), index), 1.5)
    return _bytes(facets * (1 + 0.18 * light[index][..., None]))


def dots(picture, rng, unit):
    """Round dabs on canvas, every second one warmer and the others colder than what they stand for."""
    distance, index, warm = _lattice(picture.shape[:2], 12)
    colors = _saturate(_cell_colors(_float(picture), index), 1.9)
    colors = colors + np.where(warm[..., None], np.float32((0.12, 0.02, -0.12)), np.float32((-0.1, 0.0, 0.13)))
    cover = np.clip(5.6 - distance, 0, 1)[..., None]
    return _bytes(np.clip(colors, 0, 1) * cover + np.float32((0.96, 0.93, 0.86)) * (1 - cover))


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
    gray = _blur(_float(_gray(_smooth(picture, 2))), 1.6 * unit)
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    strength = np.clip(np.hypot(dx, dy) * 3.2, 0, 1)
    mix = np.clip(_blur(_float(picture)[..., 0] - _float(picture)[..., 2], 6 * unit) * 2.5 + 0.5, 0, 1)[..., None]
    color = np.float32((0.05, 0.9, 1.0)) * (1 - mix) + np.float32((1.0, 0.1, 0.75)) * mix
    glow = strength[..., None] + 0.7 * _blur(strength, 4 * unit)[..., None]
    return _bytes(color * glow + np.float32((0.05, 0.02, 0.12)) + 0.10 * _float(picture))


def blueprint(picture, rng, unit):
    """White contours over a faint picture: contours alone are so little of it that a model leaves them out."""
    lines = np.maximum(1.1 * _lines(picture, unit, 2.0, 24), 0.5 * (1 - _blur(_stretch(_gray(picture)), unit)) ** 2)
    grid = np.zeros(lines.shape, np.float32)
    for offset in (0, 1):
        grid[offset::16], grid[:, offset::16] = 0.2, 0.2
    return _on_paper(np.maximum(lines, grid), (0.05, 0.22, 0.55), (0.92, 0.96, 1.0))


def chalk(picture, rng, unit):
    gray = _stretch(_gray(picture))
    lines = _lines(picture, unit, 2.2, 22) + np.clip(
        np.abs(cv2.Laplacian(_blur(gray, 1.8 * unit), cv2.CV_32F)) * 8 - 0.15, 0, 1
    )
    rubbed = 0.6 * _blur(gray, unit) ** 2 * (0.7 + 0.4 * _stripes(gray.shape, 16, 1))
    return _on_paper(lines + rubbed, (0.1, 0.2, 0.16), (0.95, 0.96, 0.92))


def thermal(picture, rng, unit):
    gray = _bytes(_blur(_stretch(_gray(picture)), 1.5 * unit))
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def pastel(picture, rng, unit):
    """Soft colors in broad strokes on pink paper."""
    soft = _saturate(_blur(_float(_smooth(picture, 2)), 1.2 * unit), 1.5) * 0.6 + 0.36
    cover = np.clip(0.5 + 0.8 * _stripes(soft.shape[:2], 16, 1), 0, 1)[..., None]
    return _bytes(soft * cover + np.float32((0.95, 0.78, 0.76)) * (1 - cover))


FILTERS = {name: globals()[name] for name in WORDINGS}

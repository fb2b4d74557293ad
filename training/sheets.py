"""Contact sheets: rows of an input and of what was painted from it."""

from PIL import Image, ImageDraw

from painters import edges

PHOTOGRAPH_PROMPTS = [
    ["pencil sketch", "watercolour painting", "oil painting", "comic", "mosaic", "pixel art"],
    ["pop art", "vintage poster", "stained glass", "neon lights", "blueprint", "at sunset"],
    ["at night", "in winter", "sepia photograph", "charcoal drawing", "in autumn", "chalk drawing on a blackboard"],
]
STRENGTHS = [0.3, 0.45, 0.6, 0.75, 0.9, 1.0]
DRAWING_PROMPTS = ["3d render", "flat icon", "black icon", "pencil sketch", "watercolour painting", "pixel art"]
CREATED_PROMPTS = [
    "3d render of a rocket",
    "flat icon of a cat on a blue background",
    "emoji of a pizza",
    "sticker of a fish",
    "clip art of a house",
    "black icon of a key",
    "3d render of a tulip on a pink background",
    "flat icon of a bicycle",
    "emoji of an owl",
    "pencil sketch of a rocket",
    "watercolour painting of an apple",
    "pixel art of a mushroom",
]
CANNY_PROMPTS = ["ink drawing", "pencil sketch", "watercolour painting", "comic", "pop art", "blueprint"]
# What the app of edges uses where a client is silent, and noise alone.
CANNY_STRENGTHS = [0.8, 1.0]


def contact_sheet(painter, photographs, drawings):
    """Styles on photographs, growing strength, styles on drawings, and pictures from noise."""
    coffee, cat, _ = photographs
    rows = [styled(painter, photograph, PHOTOGRAPH_PROMPTS[0]) for photograph in photographs]
    rows += [styled(painter, cat, PHOTOGRAPH_PROMPTS[1]), styled(painter, coffee, PHOTOGRAPH_PROMPTS[2])]
    for prompt in ("watercolour painting", "pop art"):
        painted = [(painter(prompt, cat, strength), f"{prompt} {strength}") for strength in STRENGTHS]
        rows.append([(cat, "input"), *painted])
    rows += [styled(painter, drawing, DRAWING_PROMPTS) for drawing in drawings[3:40:12]]
    created = [(painter.created(prompt), prompt) for prompt in CREATED_PROMPTS]
    return laid_out([*rows, created[:6], created[6:]])


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


def save(sheet, path):
    sheet.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)

"""The stages of the autoencoder: its computed encoder and all latents, and the two that train its decoder."""

import itertools
import json
import math

import numpy as np
import torch

import models
import prepare
import principal
from pictures import DRAWN_SIDES, pack
from run import Run, load_averaged, mixed_precision

# The discriminator's pull at the decoder's pixels, against 1 of the pixels' own error.
GRAIN = 0.5


def cache_latents(arguments):
    """Fits the encoder, encodes every picture, and writes the encoder's weights and the latents' statistics.

    An encoder that is already there stays, with its statistics: later stages have learned its latents.
    """
    folder = arguments.cache / "latents"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    pictures = {path.stem: np.load(path, mmap_mode="r") for path in picture_files(arguments.cache)}
    checkpoint = arguments.cache / "checkpoints/encoder.pt"
    vae = models.autoencoder()
    if checkpoint.exists():
        vae.encoder.load_state_dict(torch.load(checkpoint, weights_only=True))
        encode = linear_encoder(vae, rng)
    else:
        blocks = np.concatenate([random_crops(pixels, 8, 12000, rng) for pixels in pictures.values()])
        encoder = principal.PrincipalEncoder(scaled(blocks))
        principal.write_encoder(encoder, vae.encoder)
        check_encoder(encoder, vae, scaled(random_crops(next(iter(pictures.values())), 64, 8, rng)))
        encode = encoder.encode
    values = []
    for name, pixels in pictures.items():
        latents = np.concatenate(
            [encode(scaled(pixels[begin : begin + 64])).astype(np.float16) for begin in range(0, len(pixels), 64)]
        )
        np.save(folder / f"{name}.npy", latents)
        (folder / f"{name}-ids.pt").unlink(missing_ok=True)
        values.append(latents[::7].astype(np.float32).ravel())
        print(name, latents.shape, flush=True)
    for side in DRAWN_SIDES:
        np.save(folder / f"drawings-{side}.npy", drawing_latents(arguments.cache, encode, side))
    values = np.concatenate(values)
    statistics = {"shift_factor": round(float(values.mean()), 4), "scaling_factor": round(1 / float(values.std()), 4)}
    print(statistics)
    if not checkpoint.exists():
        (folder / "statistics.json").write_text(json.dumps(statistics))
        torch.save(vae.encoder.state_dict(), checkpoint)


def drawing_latents(cache, encode, side):
    """Each drawing's tokens on black, and what red, green and blue of the ground add to them.

    Of a square with so many tokens a side: `(n, 4, side * side, 64)`.
    """
    drawings = np.load(cache / "pictures/drawings.npy", mmap_mode="r")
    tokens = np.empty((len(drawings), 4, side * side, 64), np.float16)
    for index, drawing in enumerate(drawings):
        grounds = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
        pictures = np.stack([prepare.in_the_middle(drawing, ground, 16 * side) for ground in grounds])
        values = pack(torch.from_numpy(encode(scaled(pictures)))).numpy()
        values[1:] -= values[:1]
        tokens[index] = values
    return tokens


def check_encoder(encoder, vae, pictures):
    with torch.no_grad():
        mean = vae.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2)).latent_dist.mean.numpy()
    difference = np.abs(mean - encoder.encode(pictures)).max()
    assert difference < 0.02, f"the written encoder differs from the principal components by {difference}"


def train_decoder(arguments):
    """Trains the decoder on crops of the cached latents; a little noise prepares it for painted latents."""
    decoder = models.autoencoder().decoder.to(arguments.device, memory_format=torch.channels_last)
    run = Run("decoder", decoder, arguments, learning_rate=2e-3, ema_decay=0.998)
    crops = DecoderCrops(arguments)
    while run.progress < 1:
        side, batch = (48, 16) if run.progress < 0.5 else (64, 12) if run.progress < 0.85 else (128, 4)
        target, latent = crops.draw(run.rng, side, batch)
        with mixed_precision(arguments.device):
            result = decoder(latent)
        error = result.float() - target
        loss = pixel_loss(error)
        run.update(loss)
        run.report(loss.detach(), f"psnr {psnr(error):.1f} dB at {side} px")
    run.save()


def train_grain(arguments):
    """Goes on with the decoder against a discriminator of patches, which brings back the fine grain that a mean lacks.

    As Rombach et al. 2022 train their autoencoders (arXiv:2112.10752, appendix G), with the two gradients weighed where
    they meet, at the pixels, instead of at the decoder's last layer.
    """
    pair = decoder_and_discriminator()
    load_averaged("decoder", pair["decoder"], arguments.cache)
    pair = pair.train().requires_grad_(True).to(arguments.device, memory_format=torch.channels_last)
    run = Run("grain", pair, arguments, learning_rate=5e-4, ema_decay=0.998)
    crops = DecoderCrops(arguments)
    while run.progress < 1:
        side, batch = (64, 12) if run.progress < 0.8 else (128, 4)
        target, latent = crops.draw(run.rng, side, batch)
        with mixed_precision(arguments.device):
            result = pair["decoder"](latent).float()
            shown = result.detach().requires_grad_(True)
            fake, real = pair["discriminator"](shown).float(), pair["discriminator"](target).float()
        # Hinge losses. The two backward passes to the pixels leave the discriminator's own gradients alone, and what
        # the judgement sends to the pixels stays with the copy.
        (toward_real,) = torch.autograd.grad(-fake.mean(), shown, retain_graph=True)
        (toward_target,) = torch.autograd.grad(pixel_loss(shown - target), shown)
        share = GRAIN * min(1, run.progress * 20) * toward_target.norm() / (toward_real.norm() + 1e-12)
        judged = torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
        run.update((result * (toward_target + share * toward_real)).sum() + judged)
        run.report(judged.detach(), f"psnr {psnr(shown.detach() - target):.1f} dB at {side} px")
    run.save()


class DecoderCrops:
    """Crops of all training pictures beside their latents."""

    def __init__(self, arguments):
        self.device = arguments.device
        self.pictures = [
            (np.load(path, mmap_mode="r"), np.load(arguments.cache / "latents" / path.name, mmap_mode="r"))
            for path in picture_files(arguments.cache)
        ]
        weights = [2.0 if pixels.shape[1] * pixels.shape[2] > 128 * 128 else 3.0 for pixels, _ in self.pictures]
        self.weights = np.array(weights) / sum(weights)

    def draw(self, rng, side, batch):
        """`(b, 3, side, side)` pixels in -1..1 and their latents with a little noise, `(b, 16, side/8, side/8)`."""
        pixels, latents = self.pictures[rng.choice(len(self.pictures), p=self.weights)]
        crops, corners = random_crops(pixels, side, batch, rng, with_corners=True)
        latent = np.stack(
            [
                latents[index, :, top // 8 : (top + side) // 8, left // 8 : (left + side) // 8]
                for index, top, left in corners
            ]
        )
        target = torch.from_numpy(scaled(crops)).to(self.device).permute(0, 3, 1, 2)
        latent = torch.from_numpy(latent).to(self.device).float()
        return target, (latent + 0.05 * torch.randn_like(latent)).contiguous(memory_format=torch.channels_last)


def decoder_and_discriminator():
    return torch.nn.ModuleDict({"decoder": models.autoencoder().decoder, "discriminator": discriminator()})


def discriminator():
    """Judges each patch of 22 pixels by itself: large enough for grain and strokes, too small for what is painted."""
    channels = (3, 32, 64, 128)
    layers = []
    for n_in, n_out in itertools.pairwise(channels):
        layers += [torch.nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(channels[-1], 1, 1))


def pixel_loss(error):
    return error.abs().mean() + 0.5 * gradient(error).mean()


def psnr(error):
    """In dB, of an error between pixels in -1..1, whose range is 2: hence the 4."""
    return 10 * math.log10(4 / float((error.detach() ** 2).mean()))


def picture_files(cache):
    """The arrays of all buckets, which name the size of their pictures."""
    return sorted((cache / "pictures").glob("*-*x*.npy"))


def random_crops(pixels, side, batch, rng, with_corners=False):
    """Crops on the grid of 8 pixels, which is the latents' grid; with `(picture, top, left)` of each if wanted."""
    tops, lefts = (8 * rng.integers((length - side) // 8 + 1, size=batch) for length in pixels.shape[1:3])
    corners = list(zip(rng.integers(len(pixels), size=batch), tops, lefts))
    crops = np.stack([pixels[index, top : top + side, left : left + side] for index, top, left in corners])
    return (crops, corners) if with_corners else crops


def scaled(pixels):
    return pixels.astype(np.float32) / 127.5 - 1


def gradient(error):
    """The absolute horizontal and vertical differences, in one flat tensor."""
    return torch.cat(
        [(error[..., 1:] - error[..., :-1]).abs().flatten(), (error[..., 1:, :] - error[..., :-1, :]).abs().flatten()]
    )


def linear_encoder(vae, rng):
    """The written encoder as what it is, one matrix for every block of 8 x 8 pixels: much faster than its network."""

    def blocks_of(pictures):
        n, height, width, _ = pictures.shape
        grid = pictures.reshape(n, height // 8, 8, width // 8, 8, 3).transpose(0, 1, 3, 2, 4, 5)
        return np.concatenate([grid.reshape(n, height // 8, width // 8, 192), np.ones_like(grid[..., 0, 0, :1])], -1)

    noise = rng.uniform(-1, 1, (16, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(noise).permute(0, 3, 1, 2)).latent_dist.mean.permute(0, 2, 3, 1).numpy()
    blocks = blocks_of(noise).reshape(-1, 193)
    matrix, *_ = np.linalg.lstsq(blocks, latents.reshape(-1, latents.shape[-1]), rcond=None)
    difference = np.abs(blocks @ matrix - latents.reshape(-1, latents.shape[-1])).max()
    assert difference < 0.05, f"the encoder is not linear: it differs by {difference}"
    return lambda pictures: (blocks_of(pictures) @ matrix).transpose(0, 3, 1, 2)

"""Trains pentimento-nano in stages, each with a time budget, each resumed from its checkpoint.

    python train.py latents
    python train.py decoder --minutes 10
    python train.py grain --minutes 35 --workers 2
    python train.py transformer --minutes 48 --workers 2
    python train.py restyle --minutes 60 --workers 2
    python train.py edges
    python train.py canny --minutes 60 --workers 2
    python train.py export
    python train.py import

Stages read `<cache>/pictures` (see prepare.py) and write `<cache>/checkpoints` and `<cache>/latents`. A budget counts
all time that a stage has trained, over restarts; the learning rate falls along a cosine over that budget. With
`--again` a stage that was finished goes on from its weights as if it had just begun, for new pictures for example.
`export` writes the averaged weights as float16 in the diffusers layout; `import` makes checkpoints of such folders, so
that training can go on from a model that was exported elsewhere. Options: --cache, --model, --device, --seed, --threads,
--workers, --learning-rate.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import shutil
import time
from pathlib import Path

# Threads that wait by spinning starve each other on a CPU that other programs share. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import FluxImg2ImgPipeline, FluxTransformer2DModel  # noqa: E402

import models  # noqa: E402
import principal  # noqa: E402

HERE = Path(__file__).resolve().parent
CHECKPOINT_SECONDS = 120
REPORT_STEPS = 50
AVERAGING_STEPS = 8
EMA_STEPS = 4
TEXT_DROPPED = 0.1
# How often the noisy input is made from another look of the same picture; otherwise it is plain flow matching.
RESTYLED = 0.6
# Until which share of the budget each mix of buckets is drawn, as {bucket: share of the batches}.
CURRICULUM = [
    (0.2, {"drawings-128x128": 0.4, "photos-128x128": 0.6}),
    (
        1.0,
        {
            "drawings-128x128": 0.2,
            "photos-128x128": 0.1,
            "photos-256x256": 0.35,
            "photos-208x304": 0.25,
            "photos-304x208": 0.1,
        },
    ),
]
# The buckets of the stage that only learns to restyle, and which of its batches are crops of `CROP_TOKENS` a side: more
# pictures, and with them more styles, for the same number of tokens.
RESTYLE_SHARES = {
    "drawings-128x128": 0.15,
    "photos-256x256": 0.4,
    "photos-208x304": 0.25,
    "photos-304x208": 0.2,
}
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
# How many samples of the control variant begin with noise alone; the rest begin with the noised photograph.
CANNY_FROM_NOISE = 0.75
# The discriminator's pull at the decoder's pixels, against 1 of the pixels' own error.
GRAIN = 0.5
# Image tokens in a batch, whatever their bucket.
BATCH_TOKENS = 64 * 18


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ["latents", "decoder", "grain", "transformer", "restyle", "edges", "canny", "export", "import"]
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--again", action="store_true", help="keep a checkpoint's weights and begin its clock anew")
    parser.add_argument("--learning-rate", type=float, help="instead of the stage's own")
    parser.add_argument("--cache", type=Path, default=HERE.parent / "target/nano")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/pentimento-nano")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--workers", type=int, default=1, help="processes that train copies and average them")
    arguments = parser.parse_args()
    (arguments.cache / "checkpoints").mkdir(parents=True, exist_ok=True)
    if arguments.workers == 1:
        return work(0, arguments)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29507", WORLD_SIZE=str(arguments.workers))
    torch.multiprocessing.spawn(work, (arguments,), arguments.workers)


def work(rank, arguments):
    arguments.rank = rank
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.workers > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=arguments.workers)
    stages = {
        "latents": cache_latents,
        "decoder": train_decoder,
        "grain": train_grain,
        "transformer": train_transformer,
        "restyle": train_restyle,
        "edges": cache_edges,
        "canny": train_canny,
        "export": export,
        "import": import_model,
    }
    stages[arguments.stage](arguments)


class Run:
    """What every stage shares: the clock over restarts, the averaged weights, the checkpoint and the log."""

    def __init__(self, name, modules, arguments, learning_rate, ema_decay):
        self.path = arguments.cache / "checkpoints" / f"{name}.pt"
        self.modules, self.budget, self.ema_decay = modules, arguments.minutes * 60, ema_decay
        self.learning_rate = arguments.learning_rate or learning_rate
        parameters = [p for p in modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.averaged = copy.deepcopy(modules).requires_grad_(False)
        self.step, self.spent, self.losses = 0, 0.0, []
        if self.path.exists():
            state = torch.load(self.path, map_location=arguments.device, weights_only=True)
            modules.load_state_dict(state["modules"])
            self.averaged.load_state_dict(state["averaged"])
            # An imported checkpoint has weights alone.
            if not arguments.again and "optimizer" in state:
                self.optimizer.load_state_dict(state["optimizer"])
                self.step, self.spent = state["step"], state["spent"]
        self.rank, self.n_workers = arguments.rank, arguments.workers
        self.rng = np.random.default_rng([arguments.seed, self.step, self.rank])
        torch.manual_seed(arguments.seed + self.step + 1_000_000 * self.rank)
        self.started, self.saved, self.progress = time.monotonic() - self.spent, self.spent, self.spent / self.budget

    def update(self, loss):
        rate = (
            self.learning_rate
            * min(1, (self.step + 1) / 200)
            * (0.02 + 0.98 * (1 + math.cos(math.pi * self.progress)) / 2)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.spent = time.monotonic() - self.started
        if self.n_workers == 1:
            self.progress = self.spent / self.budget
        elif self.step % AVERAGING_STEPS == 0:
            self.average_workers()
        if self.step % EMA_STEPS == 0:
            decay = min(self.ema_decay, self.step / (self.step + 9)) ** EMA_STEPS
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), list(self.modules.parameters()), 1 - decay)

    @torch.no_grad()
    def average_workers(self):
        """Averages the weights of all workers, and their progress, so that all stop at the same step."""
        parameters = list(self.modules.parameters())
        progress = torch.tensor([self.spent / self.budget], device=parameters[0].device)
        flat = torch.cat([*(parameter.flatten() for parameter in parameters), progress])
        torch.distributed.all_reduce(flat)
        flat /= self.n_workers
        for parameter, value in zip(parameters, flat.split([parameter.numel() for parameter in parameters] + [1])):
            parameter.copy_(value.view_as(parameter))
        self.progress = float(flat[-1])

    def report(self, loss, note=""):
        if self.rank != 0:
            return
        self.losses.append(float(loss))
        if self.step % REPORT_STEPS == 0:
            print(f"step {self.step} {self.spent / 60:.1f} min loss {np.mean(self.losses):.4f} {note}", flush=True)
            self.losses = []
        if self.spent - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def save(self):
        if self.rank != 0:
            return
        self.saved = self.spent
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "modules": self.modules.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent": self.spent,
            },
            partial,
        )
        os.replace(partial, self.path)


def mixed_precision(device):
    """bfloat16 matrix products: faster on GPUs and on CPUs with AVX-512 BF16; the weights stay float32."""
    return torch.autocast(device, torch.bfloat16)


# The autoencoder -----------------------------------------------------------------------------------------------------


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
        (folder / f"{name}-tokens.pt").unlink(missing_ok=True)
        values.append(latents[::7].astype(np.float32).ravel())
        print(name, latents.shape, flush=True)
    values = np.concatenate(values)
    statistics = {"shift_factor": round(float(values.mean()), 4), "scaling_factor": round(1 / float(values.std()), 4)}
    print(statistics)
    if not checkpoint.exists():
        (folder / "statistics.json").write_text(json.dumps(statistics))
        torch.save(vae.encoder.state_dict(), checkpoint)


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
    for n_in, n_out in zip(channels, channels[1:]):
        layers += [torch.nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(channels[-1], 1, 1))


def pixel_loss(error):
    return error.abs().mean() + 0.5 * gradient(error).mean()


def psnr(error):
    """In dB, of an error between pixels in -1..1, whose range is 2: hence the 4."""
    return 10 * math.log10(4 / float((error.detach() ** 2).mean()))


def picture_files(cache):
    return sorted(path for path in (cache / "pictures").glob("*.npy") if not path.stem.startswith("held-out"))


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


def load_averaged(name, module, cache):
    module.load_state_dict(
        torch.load(cache / "checkpoints" / f"{name}.pt", map_location="cpu", weights_only=True)["averaged"]
    )
    return module.eval().requires_grad_(False)


# The transformer and the text encoders -------------------------------------------------------------------------------


class Painter(torch.nn.Module):
    """The parts that learn together: the transformer and both text encoders."""

    def __init__(self, clip_tokenizer, t5_tokenizer):
        super().__init__()
        self.clip, self.t5 = models.text_encoders(clip_tokenizer, t5_tokenizer)
        self.transformer = models.transformer()

    def forward(self, tokens, sigma, guidance, clip_ids, t5_ids, height, width):
        """Predicts the velocity, `(b, n, 64)`, of noisy image tokens `(b, n, 64)` laid out as `height x width`."""
        text = self.t5(t5_ids).last_hidden_state
        pooled = self.clip(clip_ids).pooler_output
        rows = torch.arange(height * width, device=tokens.device)
        img_ids = torch.stack([torch.zeros_like(rows), rows // width, rows % width], 1).float()
        return self.transformer(
            hidden_states=tokens,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=tokens.device),
            img_ids=img_ids,
            return_dict=False,
        )[0].float()


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
        self.clip_ids, self.t5_ids = tokenized(
            [*prompts, ""], clip_tokenizer, t5_tokenizer, cache / "latents" / f"{name}-tokens.pt"
        )
        group = np.array([record["group"] for record in records])
        self.first = np.searchsorted(group, group)
        self.size = np.searchsorted(group, group, side="right") - self.first
        weights = np.array([STYLE_WEIGHTS.get(record["style"], 1.0) for record in records])
        self.weights = weights / weights.sum()
        edges = cache / "latents" / f"{name}-edges.npy"
        if edges.exists():
            self.edges = normalized(np.load(edges), statistics)
            self.group = np.unique(group, return_inverse=True)[1]

    def draw(self, rng, device):
        """A batch: target tokens, source tokens of the same group, and token ids of the target's prompt."""
        n_batch = max(1, BATCH_TOKENS // (self.height * self.width))
        target = rng.integers(len(self.tokens), size=n_batch)
        other = self.first[target] + rng.integers(self.size[target])
        source = np.where(rng.random(n_batch) < RESTYLED, other, target)
        # Photographs come first in their groups and are what people bring, so half of the sources are.
        source = np.where((source != target) & (rng.random(n_batch) < 0.5), self.first[target], source)
        return self.batch(target, source, rng, device)

    def draw_restyled(self, rng, device):
        """As `draw`, nearly always from a photograph to a style, perhaps cropped: `(batch, edges, (height, width))`.

        The edges, `None` if there are none, are those of the first picture of the group, the photograph.
        """
        cropped = min(self.height, self.width) >= CROP_TOKENS and rng.random() < RESTYLE_CROPPED
        height, width = (CROP_TOKENS, CROP_TOKENS) if cropped else (self.height, self.width)
        n_batch = max(1, BATCH_TOKENS // (height * width))
        target = rng.choice(len(self.tokens), size=n_batch, p=self.weights)
        choice = rng.random(n_batch)
        other = self.first[target] + rng.integers(self.size[target])
        source = np.where(choice < 0.72, self.first[target], np.where(choice < 0.8, other, target))
        top, left = (
            CROP_GRID * int(rng.integers((whole - side) // CROP_GRID + 1))
            for whole, side in ((self.height, height), (self.width, width))
        )

        def crop(tokens):
            grid = tokens.unflatten(1, (self.height, self.width))
            return grid[:, top : top + height, left : left + width].flatten(1, 2)

        target_tokens, source_tokens, clip_ids, t5_ids = self.batch(target, source, rng, device)
        edges = None if self.edges is None else crop(self.edges[self.group[target]].float()).to(device)
        return (crop(target_tokens), crop(source_tokens), clip_ids, t5_ids), edges, (height, width)

    def batch(self, target, source, rng, device):
        n_batch = len(target)
        prompt = np.where(
            rng.random(n_batch) < TEXT_DROPPED,
            len(self.t5_ids) - 1,
            target * self.n_prompts + rng.integers(self.n_prompts, size=n_batch),
        )
        return [
            part.to(device)
            for part in (
                self.tokens[target].float(),
                self.tokens[source].float(),
                self.clip_ids[prompt],
                self.t5_ids[prompt],
            )
        ]


def normalized(latents, statistics):
    """Stored latents as the transformer's tokens."""
    return pack((torch.from_numpy(latents).float() - statistics["shift_factor"]) * statistics["scaling_factor"]).half()


def pack(latents):
    """FLUX's 2 x 2 patches: `(b, c, h, w)` to `(b, h/2 * w/2, 4c)`."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def tokenized(prompts, clip_tokenizer, t5_tokenizer, path):
    """The ids of both tokenizers, kept at `path` because making them takes a minute."""
    if not path.exists():
        torch.save(
            [
                tokenizer(
                    prompts,
                    padding="max_length",
                    max_length=models.SEQUENCE_LENGTH,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids
                for tokenizer in (clip_tokenizer, t5_tokenizer)
            ],
            path,
        )
    return torch.load(path)


def train_transformer(arguments):
    tokenizers = models.load_tokenizers(tokenizer_folder(arguments.cache))
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    names = sorted({name for _, shares in CURRICULUM for name in shares})
    buckets = {name: Bucket(name, arguments.cache, statistics, *tokenizers) for name in names}
    painter = Painter(*tokenizers).to(arguments.device)
    run = Run("transformer", painter, arguments, learning_rate=1e-3, ema_decay=0.999)
    n_seen = 0
    while run.progress < 1:
        shares = next(shares for until, shares in CURRICULUM if run.progress <= until)
        bucket = buckets[run.rng.choice(list(shares), p=list(shares.values()))]
        target, source, clip_ids, t5_ids = bucket.draw(run.rng, arguments.device)
        noisy, velocity, sigma, weight = noised(target, source)
        # Guidance is not distilled: the model learns to ignore this input.
        guidance = 1 + 6 * torch.rand(len(target), device=arguments.device)
        with mixed_precision(arguments.device):
            predicted = painter(noisy, sigma, guidance, clip_ids, t5_ids, bucket.height, bucket.width)
        loss = (weight * (predicted - velocity) ** 2).mean()
        run.update(loss)
        n_seen += len(target)
        run.report(loss.detach(), f"{n_seen} samples in this run")
    run.save()


def train_restyle(arguments):
    """Goes on from the transformer's checkpoint with restyling alone, mostly where the sampler begins."""
    tokenizers = models.load_tokenizers(tokenizer_folder(arguments.cache))
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    buckets = {name: Bucket(name, arguments.cache, statistics, *tokenizers) for name in RESTYLE_SHARES}
    painter = Painter(*tokenizers)
    painter.load_state_dict(
        torch.load(arguments.cache / "checkpoints/transformer.pt", map_location="cpu", weights_only=True)["modules"]
    )
    # The control variant shares the text encoders, so only the transformer goes on learning.
    painter.clip.requires_grad_(False)
    painter.t5.requires_grad_(False)
    run = Run("restyle", painter.to(arguments.device), arguments, learning_rate=7e-4, ema_decay=0.998)
    n_seen = 0
    while run.progress < 1:
        bucket = buckets[run.rng.choice(list(RESTYLE_SHARES), p=list(RESTYLE_SHARES.values()))]
        (target, source, clip_ids, t5_ids), _, (height, width) = bucket.draw_restyled(run.rng, arguments.device)
        noisy, velocity, sigma, weight = noised_at_the_start(target, source)
        guidance = 1 + 6 * torch.rand(len(target), device=arguments.device)
        with mixed_precision(arguments.device):
            predicted = painter(noisy, sigma, guidance, clip_ids, t5_ids, height, width)
        loss = (weight * (predicted - velocity) ** 2).mean()
        run.update(loss)
        n_seen += len(target)
        run.report(loss.detach(), f"{n_seen} samples in this run")
    run.save()


def noised_at_the_start(target, source, plain_mean=0.7, plain_deviation=1.5):
    """As `noised`, with what decides at a moderate strength: low starts, and half of all steps at the start itself.

    There the velocity holds no unknown noise, only the way from the picture to its other look, so that a step teaches
    more. Later steps see what the first ones have left; their weight falls because their velocity is mostly unknown.
    Plain flow matching, for what begins with noise alone, draws its levels from the sigmoid of a normal distribution.
    """
    noise = torch.randn_like(target)
    shape, device = (len(target), 1, 1), target.device
    restyled = (source != target).flatten(1).any(1).view(shape)
    high = torch.rand(shape, device=device) < 0.2
    start = 0.2 + torch.where(high, 0.8, 0.35) * torch.rand(shape, device=device)
    walked = torch.where(
        torch.rand(shape, device=device) < 0.5,
        torch.ones(shape, device=device),
        torch.rand(shape, device=device).clamp(min=0.03) ** 0.7,
    )
    plain = torch.sigmoid(plain_deviation * torch.randn(shape, device=device) + plain_mean)
    start = torch.where(restyled, start, torch.ones_like(start))
    sigma = torch.where(restyled, start * walked, plain)
    begun = start * noise + (1 - start) * torch.where(restyled, source, target)
    noisy = target + (sigma / start) * (begun - target)
    weight = start**2 / (start**2 + 0.1) * torch.where(restyled, 0.25 + 0.75 * walked, torch.ones_like(walked))
    return noisy, (begun - target) / start, sigma.flatten(), weight


# The control variant --------------------------------------------------------------------------------------------------


def cache_edges(arguments):
    """Encodes the edges of the first picture of every group, found as the server finds them."""
    vae = models.autoencoder()
    vae.encoder.load_state_dict(torch.load(arguments.cache / "checkpoints/encoder.pt", weights_only=True))
    encode = linear_encoder(vae, np.random.default_rng(arguments.seed))
    for name in RESTYLE_SHARES:
        pictures = np.load(arguments.cache / "pictures" / f"{name}.npy", mmap_mode="r")
        records = json.loads((arguments.cache / "pictures" / f"{name}.json").read_text())
        firsts = np.unique([record["group"] for record in records], return_index=True)[1]
        found = (cv2.Canny(np.ascontiguousarray(pictures[index]), 50, 200) for index in firsts)
        latents = [encode(scaled(np.repeat(edges[None, ..., None], 3, 3))).astype(np.float16) for edges in found]
        np.save(arguments.cache / "latents" / f"{name}-edges.npy", np.concatenate(latents))
        print(name, len(firsts), flush=True)


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


def train_canny(arguments):
    """Goes on from the restyled model with channels for a control picture: the edges of the photograph.

    The text encoders stay as they are, since the model and its control variant share their files.
    """
    tokenizers = models.load_tokenizers(tokenizer_folder(arguments.cache))
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    buckets = {name: Bucket(name, arguments.cache, statistics, *tokenizers) for name in RESTYLE_SHARES}
    painter = load_averaged("restyle", Painter(*tokenizers), arguments.cache)
    texts = copy.deepcopy({"clip": painter.clip.state_dict(), "t5": painter.t5.state_dict()})
    painter.transformer = with_control(painter.transformer).requires_grad_(True)
    run = Run("canny", painter.to(arguments.device), arguments, learning_rate=6e-4, ema_decay=0.998)
    # A checkpoint may be of an earlier model's text encoders.
    for trained in (run.modules, run.averaged):
        trained.clip.load_state_dict(texts["clip"])
        trained.t5.load_state_dict(texts["t5"])
    n_seen = 0
    while run.progress < 1:
        bucket = buckets[run.rng.choice(list(RESTYLE_SHARES), p=list(RESTYLE_SHARES.values()))]
        (target, source, clip_ids, t5_ids), edges, (height, width) = bucket.draw_restyled(run.rng, arguments.device)
        from_noise = torch.rand(len(target), 1, 1, device=target.device) < CANNY_FROM_NOISE
        noisy, velocity, sigma, weight = noised_at_the_start(
            target, torch.where(from_noise, target, source), plain_mean=2.0, plain_deviation=1.0
        )
        guidance = 1 + 34 * torch.rand(len(target), device=arguments.device)
        with mixed_precision(arguments.device):
            predicted = painter(torch.cat([noisy, edges], 2), sigma, guidance, clip_ids, t5_ids, height, width)
        loss = (weight * (predicted - velocity) ** 2).mean()
        run.update(loss)
        n_seen += len(target)
        run.report(loss.detach(), f"{n_seen} samples in this run")
    run.save()


def with_control(transformer):
    """A copy that also takes a control picture's 64 channels, at first without any effect."""
    controlled = models.transformer(n_control=64)
    state = transformer.state_dict()
    weight = state["x_embedder.weight"]
    state["x_embedder.weight"] = torch.cat([weight, torch.zeros_like(weight)], 1)
    controlled.load_state_dict(state)
    return controlled.train()


# Noise ---------------------------------------------------------------------------------------------------------------


def noised(target, source):
    """Noisy tokens, the velocity to learn, the noise level and the weight of the loss.

    Image-to-image starts at noise level `start` from the source, `start * noise + (1 - start) * source`, and an exact
    sampler that walks from there to the target passes, at level `sigma`, through the mix computed here. Where the
    source is the target itself this is plain flow matching: `sigma * noise + (1 - sigma) * target`.
    """
    noise = torch.randn_like(target)
    shape = (len(target), 1, 1)
    restyled = (source != target).flatten(1).any(1).view(shape)
    start = 0.25 + 0.6 * torch.rand(shape, device=target.device)
    plain = torch.sigmoid(torch.randn(shape, device=target.device) - 0.3)
    sigma = torch.where(restyled, start * torch.rand(shape, device=target.device).clamp(min=0.02) ** 0.7, plain)
    start = torch.where(restyled, start, torch.ones_like(start))
    source = torch.where(restyled, source, target)
    begun = start * noise + (1 - start) * source
    noisy = target + (sigma / start) * (begun - target)
    # A low start asks for a large velocity, which would drown the other losses.
    weight = start**2 / (start**2 + 0.1)
    return noisy, (begun - target) / start, sigma.flatten(), weight


# Export --------------------------------------------------------------------------------------------------------------


def tokenizer_folder(cache):
    """The tokenizers, trained on the prompts of all pictures when they are first wanted."""
    folder = cache / "tokenizers"
    if not folder.exists():
        prompts = [
            prompt
            for path in picture_files(cache)
            for record in json.loads(path.with_suffix(".json").read_text())
            for prompt in record["prompts"]
        ]
        models.train_tokenizers(prompts, folder)
    return folder


def export(arguments):
    """Writes the averaged weights, untrained ones where a stage has no checkpoint yet; replaces each file at once.

    The control variant's folder, beside the model's, has only what differs: the rest is the model's own.
    """
    tokenizers = models.load_tokenizers(tokenizer_folder(arguments.cache))
    statistics_file = arguments.cache / "latents/statistics.json"
    statistics = json.loads(statistics_file.read_text()) if statistics_file.exists() else {}
    vae, painter = models.autoencoder(**statistics), Painter(*tokenizers)
    with contextlib.suppress(FileNotFoundError):
        vae.encoder.load_state_dict(torch.load(arguments.cache / "checkpoints/encoder.pt", weights_only=True))
    # The last stage that there is goes over the ones before it.
    for name, module in [("decoder", vae.decoder), ("transformer", painter), ("restyle", painter)]:
        with contextlib.suppress(FileNotFoundError):
            load_averaged(name, module, arguments.cache)
    with contextlib.suppress(FileNotFoundError):
        vae.decoder = load_averaged("grain", decoder_and_discriminator(), arguments.cache)["decoder"]
    controlled = Painter(*tokenizers)
    controlled.transformer = models.transformer(n_control=64)
    with contextlib.suppress(FileNotFoundError):
        load_averaged("canny", controlled, arguments.cache)
        canny = models.control_pipeline(vae, controlled.transformer, painter.clip, painter.t5, *tokenizers)
        folder = arguments.model.with_name(models.CANNY_DEFAULTS["name"])
        write_folder(canny, models.CANNY_DEFAULTS, folder, arguments.cache, components=["transformer"])
    nano = models.pipeline(vae, painter.transformer, painter.clip, painter.t5, *tokenizers)
    write_folder(nano, models.DEFAULTS, arguments.model, arguments.cache)


def write_folder(pipeline, settings, folder, cache, components=None):
    """Writes a pipeline's files, or of its components only these, each replaced at once."""
    partial = cache / "export"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(partial)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(partial / name)
        shutil.copytree(tokenizer_folder(cache) / name, partial / name)
    (partial / "pentimento.json").write_text(json.dumps(settings, indent=2) + "\n")
    for path in partial.rglob("*"):
        relative = path.relative_to(partial)
        if path.is_file() and (components is None or len(relative.parts) == 1 or relative.parts[0] in components):
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target.with_name(target.name + ".partial"))
            os.replace(target.with_name(target.name + ".partial"), target)


def import_model(arguments):
    """Makes the checkpoints that stages begin with of the exported folders: weights, latents' statistics, tokenizers."""
    folder = arguments.cache / "checkpoints"
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} has checkpoints already: remove them, or name another --cache")
    pipeline = FluxImg2ImgPipeline.from_pretrained(arguments.model, torch_dtype=torch.float32)
    vae = pipeline.vae
    (arguments.cache / "latents").mkdir(exist_ok=True)
    statistics = {name: getattr(vae.config, name) for name in ("shift_factor", "scaling_factor")}
    (arguments.cache / "latents/statistics.json").write_text(json.dumps(statistics))
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(arguments.model / name, arguments.cache / "tokenizers" / name, dirs_exist_ok=True)
    painter = Painter(pipeline.tokenizer, pipeline.tokenizer_2)
    painter.clip, painter.t5, painter.transformer = pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer
    checkpoints = {"decoder": vae.decoder, "transformer": painter}
    canny_folder = arguments.model.with_name(models.CANNY_DEFAULTS["name"])
    if canny_folder.exists():
        checkpoints["canny"] = copy.deepcopy(painter)
        checkpoints["canny"].transformer = FluxTransformer2DModel.from_pretrained(
            canny_folder / "transformer", torch_dtype=torch.float32
        )
    torch.save(vae.encoder.state_dict(), folder / "encoder.pt")
    for name, module in checkpoints.items():
        torch.save({"modules": module.state_dict(), "averaged": module.state_dict()}, folder / f"{name}.pt")


if __name__ == "__main__":
    main()

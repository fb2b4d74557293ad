"""The stages that train the transformer: the plain model with both text encoders, and its variant for edges."""

import copy
import json

import cv2
import numpy as np
import torch

import models
from autoencoder import linear_encoder, scaled
from pictures import CANVASES, Bucket, Drawings, View
from run import Run, load_averaged, mixed_precision
from texts import Expectation, load_texts

# How often a batch is of each kind. `first` is a drawing's first step, from noise alone; `created` are later steps of
# drawings in their sets' styles, and all steps of those in the looks of filters. `restyled` begin with another look of
# the same picture.
SHARES = {
    "first drawings": 0.28,
    "created drawings": 0.25,
    "created looks-256x256": 0.07,
    "restyled drawings": 0.13,
    "restyled drawings-256x256": 0.07,
    "restyled photos-256x256": 0.1,
    "restyled photos-208x304": 0.05,
    "restyled photos-304x208": 0.05,
}
# For this part of the run the first step comes so often, and the rest is shared as above: how words become pictures is
# learned there.
BEGINNING, FIRST_AT_THE_BEGINNING = 0.2, 0.65
# How often a created look begins with noise alone.
FROM_NOISE = 0.3
# The buckets of the control variant.
CANNY_SHARES = {
    "drawings-256x256": 0.15,
    "photos-256x256": 0.4,
    "photos-208x304": 0.25,
    "photos-304x208": 0.2,
}
# Which tokens of a drawing a batch has; the rest has all. A few of them, wide apart, teach what a word looks like as
# well as all do, at a quarter of the cost. Later steps are about what neighbors agree on, so those see them.
VIEW_SHARES = {
    "first": {"lattice": 0.9},
    "created": {"window": 0.5},
    "restyled": {"window": 0.6},
}
WINDOW_TOKENS = 8
# How many samples of the control variant begin with noise alone; the rest begin with the noised photograph.
CANNY_FROM_NOISE = 0.75


class Painter(torch.nn.Module):
    """The parts that learn together: the transformer and both text encoders."""

    def __init__(self, clip_tokenizer, t5_tokenizer):
        super().__init__()
        self.clip, self.t5 = models.text_encoders(clip_tokenizer, t5_tokenizer)
        self.transformer = models.transformer()

    def forward(self, tokens, sigma, guidance, clip_ids, t5_ids, img_ids):
        """Predicts the velocity, `(b, n, 64)`, of noisy image tokens `(b, n, 64)` at positions `(n, 3)`."""
        text = self.t5(t5_ids).last_hidden_state
        pooled = self.clip(clip_ids).pooler_output
        return self.transformer(
            hidden_states=tokens,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=tokens.device),
            img_ids=img_ids.to(tokens.device),
            return_dict=False,
        )[0].float()


def train_transformer(arguments):
    """Trains the transformer to paint from a prompt alone and to restyle; the text encoders were trained before."""
    tokenizers = models.load_tokenizers(arguments.cache / "tokenizers")
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    drawings = Drawings(arguments.cache, statistics, *tokenizers)
    names = [name.split(" ")[1] for name in SHARES]
    buckets = {name: Bucket(name, arguments.cache, statistics, *tokenizers) for name in names if name != "drawings"}
    expectation = Expectation(drawings, tokenizers, arguments)
    painter = Painter(*tokenizers).to(arguments.device)
    for encoder in (painter.clip, painter.t5):
        encoder.requires_grad_(False)
    run = Run(
        "transformer",
        painter,
        arguments,
        learning_rate=1e-3,
        ema_decay=0.998,
        alike=True,
        orthogonal=lambda name: "transformer_blocks" in name,
    )
    for trained in (run.modules, run.averaged):
        load_texts(trained.clip, trained.t5, arguments.cache / "checkpoints/texts.pt")
    n_seen = 0
    while run.progress < 1:
        kind, name = run.rng.choice(list(SHARES), p=list(SHARES.values())).split(" ")
        if run.progress < BEGINNING and run.rng.random() < FIRST_AT_THE_BEGINNING:
            kind, name = "first", "drawings"
        if kind == "restyled" and name != "drawings":
            (target, source, *prompt), _, view = buckets[name].draw_restyled(run.rng, arguments.device)
        else:
            view = drawn_view(kind, name, run.rng)
            if kind == "restyled":
                target, source, *prompt = drawings.draw_restyled(view, run.rng, arguments.device)
            else:
                target, *prompt = (buckets.get(name) or drawings).draw(view, run.rng, arguments.device)
        if kind == "restyled":
            noisy, velocity, sigma, weight = noised_at_the_start(target, source)
        elif kind == "first":
            expected = target
            if (view.height, view.width) == expectation.size:
                # The expectation knows nothing of an empty prompt, which is an end and padding.
                has_text = (prompt[1] != prompt[1][:, -1:]).sum(1)[:, None, None] > 1
                expected = torch.where(has_text, expectation.of(*prompt, view.places), target)
            noisy, velocity, sigma, weight = noised_whole(expected, from_noise=1.0)
        else:
            noisy, velocity, sigma, weight = noised_whole(target, 0.0 if name == "drawings" else FROM_NOISE)
        # Guidance is not distilled: the model learns to ignore this input.
        guidance = 1 + 6 * torch.rand(len(target), device=arguments.device)
        with mixed_precision(arguments.device):
            predicted = painter(noisy, sigma, guidance, *prompt, view.img_ids)
        loss = (weight * (predicted - velocity) ** 2).mean()
        run.update(loss)
        n_seen += len(target)
        run.report(loss.detach(), kind=f"{kind} {name}", note=f"{n_seen} samples in this run")
    run.save()


def drawn_view(kind, name, rng):
    canvases = CANVASES if name == "drawings" else {(16, 16): 1.0}
    size = list(canvases)[rng.choice(len(canvases), p=list(canvases.values()))]
    shares = VIEW_SHARES[kind]
    view = rng.choice(["whole", *shares], p=[1 - sum(shares.values()), *shares.values()])
    if view == "lattice":
        return View.lattice(size, rng)
    if view == "window":
        return View.window(size, [rng.integers(length - WINDOW_TOKENS + 1) for length in size], WINDOW_TOKENS)
    return View.whole(size)


# The control variant --------------------------------------------------------------------------------------------------


def cache_edges(arguments):
    """Encodes the edges of the first picture of every group, found as the server finds them."""
    vae = models.autoencoder()
    vae.encoder.load_state_dict(torch.load(arguments.cache / "checkpoints/encoder.pt", weights_only=True))
    encode = linear_encoder(vae, np.random.default_rng(arguments.seed))
    for name in CANNY_SHARES:
        pictures = np.load(arguments.cache / "pictures" / f"{name}.npy", mmap_mode="r")
        records = json.loads((arguments.cache / "pictures" / f"{name}.json").read_text())
        firsts = np.unique([record["group"] for record in records], return_index=True)[1]
        found = (cv2.Canny(np.ascontiguousarray(pictures[index]), 50, 200) for index in firsts)
        latents = [encode(scaled(np.repeat(edges[None, ..., None], 3, 3))).astype(np.float16) for edges in found]
        np.save(arguments.cache / "latents" / f"{name}-edges.npy", np.concatenate(latents))
        print(name, len(firsts), flush=True)


def train_canny(arguments):
    """Goes on from the plain model with channels for a control picture: the edges of the photograph.

    The text encoders stay as they are: the variant then shares the model's, and has no files of its own for them.
    """
    tokenizers = models.load_tokenizers(arguments.cache / "tokenizers")
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    buckets = {name: Bucket(name, arguments.cache, statistics, *tokenizers) for name in CANNY_SHARES}
    painter = load_averaged("transformer", Painter(*tokenizers), arguments.cache)
    texts = copy.deepcopy({"clip": painter.clip.state_dict(), "t5": painter.t5.state_dict()})
    painter.transformer = with_control(painter.transformer).requires_grad_(True)
    run = Run("canny", painter.to(arguments.device), arguments, learning_rate=6e-4, ema_decay=0.998)
    # A checkpoint may be of an earlier model's text encoders.
    for trained in (run.modules, run.averaged):
        trained.clip.load_state_dict(texts["clip"])
        trained.t5.load_state_dict(texts["t5"])
    n_seen = 0
    while run.progress < 1:
        bucket = buckets[run.rng.choice(list(CANNY_SHARES), p=list(CANNY_SHARES.values()))]
        (target, source, *prompt), edges, view = bucket.draw_restyled(run.rng, arguments.device)
        from_noise = torch.rand(len(target), 1, 1, device=target.device) < CANNY_FROM_NOISE
        noisy, velocity, sigma, weight = noised_at_the_start(
            target, torch.where(from_noise, target, source), plain_mean=2.0, plain_deviation=1.0
        )
        guidance = 1 + 34 * torch.rand(len(target), device=arguments.device)
        with mixed_precision(arguments.device):
            predicted = painter(torch.cat([noisy, edges], 2), sigma, guidance, *prompt, view.img_ids)
        loss = (weight * (predicted - velocity) ** 2).mean()
        run.update(loss)
        n_seen += len(target)
        run.report(loss.detach(), note=f"{n_seen} samples in this run")
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


def noised_whole(target, from_noise, mean=0.9, deviation=1.2):
    """Plain flow matching: noisy tokens, the velocity to learn, the noise level and the weight of the loss.

    Levels are the sigmoid of a normal distribution, mostly high, where the prompt decides. The share `from_noise` is
    noise alone, where the sampler begins.
    """
    noise = torch.randn_like(target)
    shape, device = (len(target), 1, 1), target.device
    sigma = torch.sigmoid(mean + deviation * torch.randn(shape, device=device))
    sigma = torch.where(torch.rand(shape, device=device) < from_noise, torch.ones_like(sigma), sigma)
    return sigma * noise + (1 - sigma) * target, noise - target, sigma.flatten(), torch.ones_like(sigma)


def noised_at_the_start(target, source, plain_mean=0.7, plain_deviation=1.5):
    """As `noised_whole`, along the sampler's own path from the noised `source` to the target.

    Image-to-image starts at noise level `start` from the source, `start * noise + (1 - start) * source`, and an exact
    sampler that walks from there to the target passes, at level `sigma`, through the mix computed here. Where the
    source is the target itself this is plain flow matching.

    What decides at a moderate strength comes most often: low starts, and half of all steps at the start itself. There
    the velocity holds no unknown noise, only the way from the picture to its other look, so that a step teaches more.
    Later steps see what the first ones have left; their weight falls because their velocity is mostly unknown.
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
    # A low start asks for a large velocity, which would drown the other losses.
    weight = start**2 / (start**2 + 0.1) * torch.where(restyled, 0.25 + 0.75 * walked, torch.ones_like(walked))
    return noisy, (begun - target) / start, sigma.flatten(), weight

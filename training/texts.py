"""The stage that teaches both text encoders what words look like, before any transformer reads them.

Each encoder learns to predict a drawing from its prompt: the principal components of its latents. A transformer that
starts from such texts learns subjects several times as fast as from texts that mean nothing yet. The words' embeddings
begin with the least-squares answer to the same question, for the sum of a phrase's words.
"""

import copy
import json

import numpy as np
import torch
from torch.nn import functional

import models
import prepare
import styles
from pictures import Drawings, View, token_ids
from run import Run, load_averaged
from sources import DRAWING_SETS

N_COMPONENTS = 512
N_DRAWINGS_FITTED, N_EXPECTED_FITTED = 3000, 6000
BATCH = 96
# What a prompt of other pictures made before stays as it is: these are so many of a batch, and their pull.
N_KEPT, KEPT = 16, 0.3
# The pull of telling the pictures of a batch apart, against 1 of predicting them.
CONTRAST, SHARPNESS = 0.1, 12
# Between its width in pictures and the widths of single words, which were random: the embedding of a known word.
WORD_SCALE, WORD_KEPT = 1.5, 0.5
# How much a tag counts when words are fitted, against 1 of the label; and what keeps the fit of rare words small.
TAG, RIDGE = 0.15, 0.02
VIEW = View((16, 16), np.arange(0, 16, 2), np.arange(0, 16, 2))


def train_texts(arguments):
    """Teaches new encoders from the first word, or goes on with those of an imported model."""
    tokenizers = models.load_tokenizers(arguments.cache / "tokenizers")
    statistics = json.loads((arguments.cache / "latents/statistics.json").read_text())
    drawings = Drawings(arguments.cache, statistics, *tokenizers)
    clip, t5 = models.text_encoders(*tokenizers)
    components = Components(drawings, np.random.default_rng(arguments.seed))
    earlier = arguments.cache / "checkpoints/transformer.pt"
    goes_on = earlier.exists()
    if goes_on:
        load_texts(clip, t5, earlier, "modules")
    else:
        for tokenizer, encoder in zip(tokenizers, (clip, t5)):
            fit_words(drawings, components, tokenizer, encoder.get_input_embeddings())
    modules = with_heads(clip, t5)
    before = copy.deepcopy(modules).to(arguments.device)
    run = Run("texts", modules.to(arguments.device), arguments, learning_rate=1.5e-3, ema_decay=0.998)
    others = token_ids(other_prompts(arguments.cache), *tokenizers)
    while run.progress < 1:
        target, clip_ids, t5_ids = (part.to(arguments.device) for part in components.draw(tokenizers, run.rng))
        pooled, tokens = encoded(modules, clip_ids, t5_ids)
        loss = 0
        for predicted in (modules["clip_head"](pooled), modules["t5_head"](tokens)):
            alike = functional.normalize(predicted, dim=1) @ functional.normalize(target, dim=1).T
            told_apart = functional.cross_entropy(SHARPNESS * alike, torch.arange(len(target), device=target.device))
            loss = loss + ((predicted - target) ** 2).mean() + CONTRAST * told_apart
        run.report(loss.detach())
        if goes_on:
            chosen = run.rng.integers(len(others[0]), size=N_KEPT)
            kept = [ids[chosen].to(arguments.device) for ids in others]
            with torch.no_grad():
                wanted = encoded(before, *kept)
            for value, was in zip(encoded(modules, *kept), wanted):
                loss = loss + KEPT * ((value - was) ** 2).mean() / was.var()
        run.update(loss)
    run.save()


class Expectation:
    """What trained text encoders expect of a prompt: the mean of the pictures that it might be of, as tokens.

    It is what a transformer that sees noise alone has to paint, and a better teacher than any one picture, most of
    which the prompt does not tell. Reads the encoders with their heads, and fits tokens to what the heads say.
    """

    def __init__(self, drawings, tokenizers, arguments):
        clip, t5 = models.text_encoders(*tokenizers)
        self.modules = load_averaged("texts", with_heads(clip, t5), arguments.cache).to(arguments.device)
        self.size = (16, 16)
        view, rng = View.whole(self.size), np.random.default_rng(arguments.seed)
        count, inner, outer = 0, 0, 0
        while count < N_EXPECTED_FITTED:
            tokens, prompts = drawings.some(BATCH, view, rng)
            said = self.said(*(ids.to(arguments.device) for ids in token_ids(prompts, *tokenizers)))
            inner, outer = inner + said.T @ said, outer + said.T @ tokens.to(arguments.device).flatten(1)
            count += len(prompts)
        inner.diagonal().mul_(1 + RIDGE)
        self.tokens = torch.linalg.solve(inner, outer)

    @torch.no_grad()
    def of(self, clip_ids, t5_ids, places):
        """Tokens `(b, n, 64)` at `places` of the square canvas."""
        return (self.said(clip_ids, t5_ids) @ self.tokens).unflatten(1, (-1, 64))[:, places]

    @torch.no_grad()
    def said(self, clip_ids, t5_ids):
        pooled, tokens = encoded(self.modules, clip_ids, t5_ids)
        parts = [self.modules["clip_head"](pooled), self.modules["t5_head"](tokens), torch.ones_like(pooled[:, :1])]
        return torch.cat(parts, 1)


def with_heads(clip, t5):
    return torch.nn.ModuleDict({"clip": clip, "t5": t5, "clip_head": pooled_head(), "t5_head": TokensHead()})


def load_texts(clip, t5, path, weights="averaged"):
    """Reads both encoders' weights from a checkpoint that has them, of the texts or of a whole painter."""
    state = torch.load(path, map_location="cpu", weights_only=True)[weights]
    for name, encoder in (("clip", clip), ("t5", t5)):
        parts = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        encoder.load_state_dict(parts)


def encoded(modules, clip_ids, t5_ids):
    return modules["clip"](clip_ids).pooler_output, modules["t5"](t5_ids).last_hidden_state


class Components:
    """Drawings on backgrounds as principal components of their tokens, scaled half way to equal variances."""

    def __init__(self, drawings, rng):
        self.drawings = drawings
        chosen = rng.choice(len(drawings.keys), size=N_DRAWINGS_FITTED)
        pictures = torch.stack([drawings.one(drawings.keys[key], VIEW, rng)[0].flatten() for key in chosen])
        self.mean = pictures.mean(0)
        _, sizes, directions = torch.pca_lowrank(pictures - self.mean, N_COMPONENTS, center=False, niter=3)
        self.matrix = directions / sizes**0.5
        self.matrix /= ((pictures - self.mean) @ self.matrix).std()

    def of(self, tokens):
        """`(b, n, 64)` tokens of `VIEW` as `(b, N_COMPONENTS)`."""
        return (tokens.flatten(1) - self.mean) @ self.matrix

    def draw(self, tokenizers, rng):
        tokens, prompts = self.drawings.some(BATCH, VIEW, rng)
        return self.of(tokens), *token_ids(prompts, *tokenizers)


def pooled_head():
    return torch.nn.Sequential(
        torch.nn.Linear(models.WIDTH_TEXT, 1024), torch.nn.GELU(), torch.nn.Linear(1024, N_COMPONENTS)
    )


class TokensHead(torch.nn.Module):
    """Eight learned questions to all tokens of a text, and what their answers say of the picture."""

    def __init__(self, n_questions=8):
        super().__init__()
        width = models.WIDTH_TEXT
        self.questions = torch.nn.Parameter(0.1 * torch.randn(n_questions, width))
        self.keys_values = torch.nn.Linear(width, 2 * width)
        self.answer = torch.nn.Sequential(
            torch.nn.Linear(n_questions * width, 1024), torch.nn.GELU(), torch.nn.Linear(1024, N_COMPONENTS)
        )

    def forward(self, tokens):
        keys, values = self.keys_values(tokens).chunk(2, -1)
        weights = torch.softmax(self.questions @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5, -1)
        return self.answer((weights @ values).flatten(1))


@torch.no_grad()
def fit_words(drawings, components, tokenizer, embedding):
    """Begins the embeddings of the words of subjects with the mean pictures that they stand for.

    Words of styles and backgrounds are left alone: they mean something beside a subject, not a picture.
    """
    white = prepare.BACKGROUNDS["white"]
    pictures = torch.stack(
        [
            components.of(torch.stack([drawings.tokens(index, white, VIEW) for index, _ in looks])).mean(0)
            for looks in drawings.subjects.values()
        ]
    )
    pictures -= pictures.mean(0)
    directions = torch.pca_lowrank(pictures, embedding.embedding_dim, center=False)[2]
    pictures = pictures @ directions
    phrases = [
        (phrase, row, 1.0 if place == 0 else TAG)
        for row, looks in enumerate(drawings.subjects.values())
        for place, phrase in enumerate(looks[0][1]["subjects"])
    ]
    words = torch.zeros(len(phrases), embedding.num_embeddings)
    for row, (phrase, _, _) in enumerate(phrases):
        ids = tokenizer(phrase, add_special_tokens=False).input_ids
        words[row].index_add_(0, torch.tensor(ids), torch.full((len(ids),), 1 / len(ids)))
    weighted = words * torch.tensor([weight for _, _, weight in phrases])[:, None]
    wanted = pictures[[row for _, row, _ in phrases]]
    fitted = torch.linalg.solve(weighted.T @ words + RIDGE * torch.eye(embedding.num_embeddings), weighted.T @ wanted)
    others = [*prepare.BACKGROUNDS, "a an the of on background ,"]
    others += [word for set_words in DRAWING_SETS.values() for word in set_words[2]]
    others += [word for look_words in styles.WORDINGS.values() for word in look_words]
    is_subject = words.sum(0) > 0
    is_subject[[token for text in others for token in tokenizer(text).input_ids]] = False
    size = embedding.weight.norm(dim=1).mean() / fitted[is_subject].norm(dim=1).mean()
    embedding.weight[is_subject] = WORD_KEPT * embedding.weight[is_subject] + WORD_SCALE * size * fitted[is_subject]


def other_prompts(cache):
    """The prompts of all pictures but the drawings in their sets' own styles."""
    return sorted(
        {
            prompt
            for path in (cache / "pictures").glob("*-*.json")
            if not path.stem.startswith("held-out")
            for record in json.loads(path.read_text())
            if record["style"] not in DRAWING_SETS
            for prompt in record["prompts"]
        }
    )

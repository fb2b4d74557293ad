"""The stages that write the model folders from checkpoints, and checkpoints from model folders."""

import contextlib
import copy
import json
import os
import shutil

import torch
from diffusers import FluxImg2ImgPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

import models
from autoencoder import decoder_and_discriminator
from painting import Painter
from run import load_averaged


def export(arguments):
    """Writes the averaged weights, untrained ones where a stage has no checkpoint yet; replaces each file at once.

    The control variant's folder, beside the model's, has only what differs: the rest is the model's own. That is its
    transformer, and its text encoders if the model's have learned since the variant did.
    """
    tokenizers = models.load_tokenizers(arguments.cache / "tokenizers")
    statistics_file = arguments.cache / "latents/statistics.json"
    statistics = json.loads(statistics_file.read_text()) if statistics_file.exists() else {}
    vae, painter = models.autoencoder(**statistics), Painter(*tokenizers)
    with contextlib.suppress(FileNotFoundError):
        vae.encoder.load_state_dict(torch.load(arguments.cache / "checkpoints/encoder.pt", weights_only=True))
    # The last stage that there is goes over the ones before it.
    for name, module in [("decoder", vae.decoder), ("transformer", painter)]:
        with contextlib.suppress(FileNotFoundError):
            load_averaged(name, module, arguments.cache)
    with contextlib.suppress(FileNotFoundError):
        vae.decoder = load_averaged("grain", decoder_and_discriminator(), arguments.cache)["decoder"]
    controlled = Painter(*tokenizers)
    controlled.transformer = models.transformer(n_control=64)
    with contextlib.suppress(FileNotFoundError):
        load_averaged("canny", controlled, arguments.cache)
        canny = models.control_pipeline(vae, controlled.transformer, controlled.clip, controlled.t5, *tokenizers)
        folder = arguments.model.with_name(models.CANNY_DEFAULTS["name"])
        components = ["transformer"]
        for encoder, own, shared in (
            ("text_encoder", controlled.clip, painter.clip),
            ("text_encoder_2", controlled.t5, painter.t5),
        ):
            shutil.rmtree(folder / encoder, ignore_errors=True)
            if not alike(own, shared):
                components.append(encoder)
        write_folder(canny, models.CANNY_DEFAULTS, folder, arguments.cache, components)
    nano = models.pipeline(vae, painter.transformer, painter.clip, painter.t5, *tokenizers)
    write_folder(nano, models.DEFAULTS, arguments.model, arguments.cache)


def alike(module, other):
    """Whether float16 weights of both are the same."""
    pairs = zip(module.state_dict().values(), other.state_dict().values())
    return all(torch.equal(value.half(), same.half()) for value, same in pairs)


def write_folder(pipeline, settings, folder, cache, components=None):
    """Writes a pipeline's files, or of its components only these, each replaced at once."""
    partial = cache / "export"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(partial)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(partial / name)
        shutil.copytree(cache / "tokenizers" / name, partial / name)
    (partial / "pentimento.json").write_text(json.dumps(settings, indent=2) + "\n")
    for path in partial.rglob("*"):
        relative = path.relative_to(partial)
        if path.is_file() and (components is None or len(relative.parts) == 1 or relative.parts[0] in components):
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target.with_name(target.name + ".partial"))
            os.replace(target.with_name(target.name + ".partial"), target)


def own_parts(folder):
    """What a variant's folder has of its own: its transformer, and perhaps text encoders."""
    classes = {"transformer": FluxTransformer2DModel, "text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    return {
        name: kind.from_pretrained(folder / name, torch_dtype=torch.float32)
        for name, kind in classes.items()
        if (folder / name).exists()
    }


def import_model(arguments):
    """Makes of exported folders what stages begin with: checkpoints of weights, latents' statistics, tokenizers."""
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
        for name, part in own_parts(canny_folder).items():
            setattr(checkpoints["canny"], {"text_encoder": "clip", "text_encoder_2": "t5"}.get(name, name), part)
    torch.save(vae.encoder.state_dict(), folder / "encoder.pt")
    for name, module in checkpoints.items():
        torch.save({"modules": module.state_dict(), "averaged": module.state_dict()}, folder / f"{name}.pt")

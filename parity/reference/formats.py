"""The tiny models in the layouts that people have, and what diffusers' own loaders make of them.

Three kinds of answers: how published single files name and cut the tensors of a model (`layouts.json`), what a LoRA in
each spelling does to the weights (`lora_*`), and what quantized blocks stand for (`*.gguf` and `gguf.json`).
"""

import hashlib
import inspect
import json
import logging
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FluxPipeline,
    FluxTransformer2DModel,
    GGUFQuantizationConfig,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders import lora_conversion_utils, lora_pipeline, single_file_model, single_file_utils
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPTextModelWithProjection

FLUX, SDXL = "flux-dev-tiny", "sdxl-tiny"
# How strongly the recorded LoRAs are fused.
LORA_SCALE = 0.75
RANK = 4
QKV = ["q", "k", "v"]


def record_formats(folder: Path, goldens: Path) -> None:
    folder.mkdir(exist_ok=True)
    flux, sdxl = goldens / "models" / FLUX, goldens / "models" / SDXL
    record_layouts(folder / "layouts.json", flux, sdxl)
    record_flux_loras(folder, flux)
    record_sdxl_lora(folder, sdxl)
    record_ggufs(folder, flux)


# --- single files ---


def record_layouts(path: Path, flux: Path, sdxl: Path) -> None:
    """One entry a stored tensor: its name, what is done to those of the model, and their names."""
    transformer = load(flux / "transformer")
    unet, encoder_2 = load(sdxl / "unet"), load(sdxl / "text_encoder_2")
    layouts = {
        "flux_bfl": flux_bfl(transformer),
        "flux_ae": ldm_vae(load(flux / "vae")),
        "sdxl_unet": ldm_unet(unet),
        "sdxl_vae": ldm_vae(load(sdxl / "vae")),
        "sdxl_open_clip": open_clip(encoder_2),
    }
    models = {"flux_bfl": transformer, "sdxl_unet": unet, "sdxl_open_clip": encoder_2}
    models |= {"flux_ae": load(flux / "vae"), "sdxl_vae": load(sdxl / "vae")}
    for name, layout in layouts.items():
        taken = sorted(part for _, _, parts in layout for part in parts)
        assert taken == sorted(models[name]), f"{name} leaves out {set(models[name]) ^ set(taken)}"
        back = convert_with_diffusers(name, stored(layout, models[name]), flux, sdxl)
        assert back.keys() == models[name].keys(), f"{name}: {back.keys() ^ models[name].keys()}"
        assert all(torch.equal(back[key], value) for key, value in models[name].items()), name
    path.write_text("{\n" + ",\n".join(entry(name, layout) for name, layout in layouts.items()) + "\n}\n")


def entry(name: str, layout: list) -> str:
    lines = ",\n".join("  " + json.dumps(line) for line in layout)
    return f"{json.dumps(name)}: [\n{lines}\n]"


def stored(layout: list, model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as the published file would have them."""
    how = {
        "same": lambda parts: parts[0].clone(),
        "joined": lambda parts: torch.cat(parts),
        "halves_swapped": lambda parts: torch.cat(list(reversed(parts[0].chunk(2)))),
        "turned": lambda parts: parts[0].T.contiguous(),
        "pointwise": lambda parts: parts[0][:, :, None, None].clone(),
    }
    return {name: how[action]([model[part] for part in parts]) for name, action, parts in layout}


def convert_with_diffusers(name: str, checkpoint: dict, flux: Path, sdxl: Path) -> dict[str, torch.Tensor]:
    match name:
        case "flux_bfl":
            prefixed = {"model.diffusion_model." + key: value for key, value in checkpoint.items()}
            convert = for_tiny(single_file_utils, "convert_flux_transformer_checkpoint_to_diffusers")
            return convert(prefixed)
        case "flux_ae":
            return single_file_utils.convert_ldm_vae_checkpoint(checkpoint, AutoencoderKL.load_config(flux / "vae"))
        case "sdxl_vae":
            prefixed = {"first_stage_model." + key: value for key, value in checkpoint.items()}
            return single_file_utils.convert_ldm_vae_checkpoint(prefixed, AutoencoderKL.load_config(sdxl / "vae"))
        case "sdxl_unet":
            prefixed = {"model.diffusion_model." + key: value for key, value in checkpoint.items()}
            config = UNet2DConditionModel.load_config(sdxl / "unet")
            return single_file_utils.convert_ldm_unet_checkpoint(prefixed, config)
        case "sdxl_open_clip":
            encoder = CLIPTextModelWithProjection.from_pretrained(sdxl / "text_encoder_2")
            prefix = "conditioner.embedders.1.model."
            prefixed = {prefix + key: value for key, value in checkpoint.items()}
            converted = single_file_utils.convert_open_clip_checkpoint(encoder, prefixed, prefix)
            return {key: value for key, value in converted.items() if not key.endswith("position_ids")}


def for_tiny(module, name: str):
    """A function of the reference's with the real model's width, which it has written into it, exchanged for ours."""
    source = inspect.getsource(getattr(module, name))
    tiny = source.replace("[3072, 3072, 3072, 12288]", "[64, 64, 64, 256]").replace("inner_dim = 3072", "inner_dim = 64")
    assert tiny != source
    scope = dict(vars(module))
    exec(compile(tiny, f"<{name} for tiny models>", "exec"), scope)
    return scope[name]


def flux_bfl(model: dict) -> list:
    layout = Layout()
    layers = {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
    }
    for theirs, ours in layers.items():
        layout.layer(theirs, [ours])
    layout.layer("final_layer.adaLN_modulation.1", ["norm_out.linear"], "halves_swapped")
    for idx in range(numbered(model, "transformer_blocks")):
        theirs, ours = f"double_blocks.{idx}", f"transformer_blocks.{idx}"
        names = {"img": ["to_q", "to_k", "to_v"], "txt": ["add_q_proj", "add_k_proj", "add_v_proj"]}
        norms = {"img": ["norm_q", "norm_k"], "txt": ["norm_added_q", "norm_added_k"]}
        outs = {"img": "to_out.0", "txt": "to_add_out"}
        forwards = {"img": "ff", "txt": "ff_context"}
        modulations = {"img": "norm1", "txt": "norm1_context"}
        for stream in ("img", "txt"):
            attention = f"{theirs}.{stream}_attn"
            layout.layer(f"{attention}.qkv", [f"{ours}.attn.{name}" for name in names[stream]], "joined")
            layout.layer(f"{attention}.proj", [f"{ours}.attn.{outs[stream]}"])
            layout.tensor(f"{attention}.norm.query_norm.scale", [f"{ours}.attn.{norms[stream][0]}.weight"])
            layout.tensor(f"{attention}.norm.key_norm.scale", [f"{ours}.attn.{norms[stream][1]}.weight"])
            layout.layer(f"{theirs}.{stream}_mod.lin", [f"{ours}.{modulations[stream]}.linear"])
            layout.layer(f"{theirs}.{stream}_mlp.0", [f"{ours}.{forwards[stream]}.net.0.proj"])
            layout.layer(f"{theirs}.{stream}_mlp.2", [f"{ours}.{forwards[stream]}.net.2"])
    for idx in range(numbered(model, "single_transformer_blocks")):
        theirs, ours = f"single_blocks.{idx}", f"single_transformer_blocks.{idx}"
        parts = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]
        layout.layer(f"{theirs}.linear1", [f"{ours}.{part}" for part in parts], "joined")
        layout.layer(f"{theirs}.linear2", [f"{ours}.proj_out"])
        layout.layer(f"{theirs}.modulation.lin", [f"{ours}.norm.linear"])
        layout.tensor(f"{theirs}.norm.query_norm.scale", [f"{ours}.attn.norm_q.weight"])
        layout.tensor(f"{theirs}.norm.key_norm.scale", [f"{ours}.attn.norm_k.weight"])
    return layout.lines


def ldm_unet(model: dict) -> list:
    layout = Layout()
    layers = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    for theirs, ours in layers.items():
        layout.layer(theirs, [ours])
    blocks = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0"}
    blocks["middle_block.2"] = "mid_block.resnets.1"
    levels, at = numbered(model, "down_blocks"), 1
    for level in range(levels):
        for idx in range(2):
            blocks[f"input_blocks.{at}.0"] = f"down_blocks.{level}.resnets.{idx}"
            blocks[f"input_blocks.{at}.1"] = f"down_blocks.{level}.attentions.{idx}"
            at += 1
        blocks[f"input_blocks.{at}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        at += 1
    for level in range(levels):
        for idx in range(3):
            blocks[f"output_blocks.{3 * level + idx}.0"] = f"up_blocks.{level}.resnets.{idx}"
            blocks[f"output_blocks.{3 * level + idx}.1"] = f"up_blocks.{level}.attentions.{idx}"
        blocks[f"output_blocks.{3 * level + 2}.2.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    parts = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    parts |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    for theirs, ours in blocks.items():
        for name in sorted(name for name in model if name.startswith(ours + ".")):
            rest = name.removeprefix(ours + ".")
            part, _, suffix = rest.rpartition(".")
            layout.tensor(f"{theirs}.{parts[part]}.{suffix}" if part in parts else f"{theirs}.{rest}", [name])
    return layout.lines


def ldm_vae(model: dict) -> list:
    layout = Layout()
    levels = numbered(model, "encoder.down_blocks")
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for name in sorted(model):
        theirs = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        theirs = theirs.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        for idx in range(levels):
            theirs = theirs.replace(f"encoder.down_blocks.{idx}.", f"encoder.down.{idx}.")
            theirs = theirs.replace(f"decoder.up_blocks.{idx}.", f"decoder.up.{levels - 1 - idx}.")
        theirs = theirs.replace("resnets.", "block.").replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
        action = "same"
        for ours, renamed in attention.items():
            if f"attentions.0.{ours}." in theirs:
                theirs = theirs.replace(f"mid_block.attentions.0.{ours}", f"mid.attn_1.{renamed}")
                action = "pointwise" if renamed != "norm" and name.endswith("weight") else "same"
        layout.tensor(theirs, [name], action)
    return layout.lines


def open_clip(model: dict) -> list:
    layout = Layout()
    layout.tensor("text_projection", ["text_projection.weight"], "turned")
    layout.tensor("positional_embedding", ["text_model.embeddings.position_embedding.weight"])
    layout.tensor("token_embedding.weight", ["text_model.embeddings.token_embedding.weight"])
    layout.layer("ln_final", ["text_model.final_layer_norm"])
    for idx in range(numbered(model, "text_model.encoder.layers")):
        theirs, ours = f"transformer.resblocks.{idx}", f"text_model.encoder.layers.{idx}"
        for kind in ("weight", "bias"):
            layout.tensor(f"{theirs}.attn.in_proj_{kind}", [f"{ours}.self_attn.{x}_proj.{kind}" for x in QKV], "joined")
        layers = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
        for part, name in (layers | {"ln_1": "layer_norm1", "ln_2": "layer_norm2"}).items():
            layout.layer(f"{theirs}.{part}", [f"{ours}.{name}"])
    return layout.lines


class Layout:
    def __init__(self) -> None:
        self.lines = []

    def tensor(self, theirs: str, ours: list[str], action: str = "same") -> None:
        self.lines.append([theirs, action, ours])

    def layer(self, theirs: str, ours: list[str], action: str = "same") -> None:
        for kind in ("weight", "bias"):
            self.tensor(f"{theirs}.{kind}", [f"{name}.{kind}" for name in ours], action)


def numbered(model: dict, below: str) -> int:
    return 1 + max(int(name.removeprefix(below + ".").split(".")[0]) for name in model if name.startswith(below + "."))


def load(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


# --- LoRA ---


def record_flux_loras(folder: Path, flux: Path) -> None:
    """kohya's spelling, the same in ComfyUI's, and that of diffusers, each with the weights that it changes."""
    generator = torch.Generator().manual_seed(11)
    layers = {"double_blocks.0.img_attn.qkv": (192, 64), "double_blocks.1.txt_mlp.2": (64, 256)}
    # The reference drops the layers outside of blocks, so none is here.
    layers |= {"single_blocks.1.linear1": (448, 64), "single_blocks.2.linear2": (64, 320)}
    pairs = {name: matrices(shape, generator) for name, shape in layers.items()}
    # Without an output projection the reference does not know what kind of file it has.
    text = {f"encoder.layers.1.self_attn.{name}": matrices((32, 32), generator) for name in ("v_proj", "out_proj")}
    alpha = torch.tensor(2.0)

    kohya, comfy = {}, {}
    for name, (down, up) in pairs.items():
        flat = "lora_unet_" + name.replace(".", "_")
        kohya |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        kohya[f"{flat}.alpha"] = alpha.clone()
        comfy |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
        comfy[f"diffusion_model.{name}.alpha"] = alpha.clone()
    for name, (down, up) in text.items():
        flat = "lora_te1_text_model_" + name.replace(".", "_")
        kohya |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": alpha.clone()}
    save_file(kohya, folder / "lora_flux_kohya.safetensors")
    save_file(comfy, folder / "lora_flux_comfy.safetensors")
    name = "_convert_kohya_flux_lora_to_diffusers"
    setattr(lora_pipeline, name, for_tiny(lora_conversion_utils, name))
    fused(FluxPipeline, flux, folder / "lora_flux_kohya")

    peft = {}
    layers = {"transformer.transformer_blocks.1.attn.add_k_proj": (64, 64), "transformer.x_embedder": (64, 64)}
    layers["transformer.single_transformer_blocks.0.proj_mlp"] = (256, 64)
    layers["text_encoder.text_model.encoder.layers.0.self_attn.out_proj"] = (32, 32)
    for layer, shape in layers.items():
        down, up = matrices(shape, generator)
        peft |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    save_file(peft, folder / "lora_flux_peft.safetensors", metadata={"format": "pt"})
    fused(FluxPipeline, flux, folder / "lora_flux_peft")

    # As newer versions write it, with the alpha in the header.
    config = {"transformer.r": RANK, "transformer.lora_alpha": 6, "transformer.target_modules": ["x_embedder"]}
    config |= {"transformer.lora_dropout": 0.0, "transformer.bias": "none", "transformer.peft_type": "LORA"}
    down, up = matrices((64, 64), generator)
    names = {"transformer.x_embedder.lora_A.weight": down, "transformer.x_embedder.lora_B.weight": up}
    save_file(names, folder / "lora_flux_header.safetensors", metadata={"lora_adapter_metadata": json.dumps(config)})
    fused(FluxPipeline, flux, folder / "lora_flux_header")


def record_sdxl_lora(folder: Path, sdxl: Path) -> None:
    """kohya's spelling with convolutions and both text encoders."""
    generator = torch.Generator().manual_seed(12)
    layers = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (48, 80),
        "lora_unet_middle_block_1_proj_in": (64, 64),
        "lora_unet_output_blocks_3_1_transformer_blocks_0_ff_net_0_proj": (384, 48),
        "lora_unet_input_blocks_4_0_in_layers_2": (48, 32, 3, 3),
        "lora_unet_input_blocks_4_0_skip_connection": (48, 32, 1, 1),
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (40, 40),
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj": (40, 40),
        "lora_te2_text_model_encoder_layers_3_self_attn_out_proj": (40, 40),
        "lora_te2_text_model_encoder_layers_3_mlp_fc2": (40, 160),
    }
    kohya = {}
    for name, shape in layers.items():
        down, up = matrices(shape, generator)
        kohya |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(3.0)}
    save_file(kohya, folder / "lora_sdxl_kohya.safetensors")
    fused(StableDiffusionXLPipeline, sdxl, folder / "lora_sdxl_kohya")


def matrices(shape: tuple[int, ...], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    down = 0.2 * torch.randn((RANK, *shape[1:]), generator=generator)
    up = 0.2 * torch.randn((shape[0], RANK, *[1] * (len(shape) - 2)), generator=generator)
    return down, up


def fused(pipeline_class, model: Path, lora: Path) -> None:
    """Records every tensor that the LoRA changes, after diffusers fused it."""
    pipeline = pipeline_class.from_pretrained(model, torch_dtype=torch.float32)
    before = weights(pipeline)
    pipeline.load_lora_weights(lora.with_suffix(".safetensors"))
    pipeline.fuse_lora(components=pipeline._lora_loadable_modules, lora_scale=LORA_SCALE)
    pipeline.unload_lora_weights()
    after = weights(pipeline)
    assert before.keys() == after.keys()
    changed = {name: value for name, value in after.items() if not torch.equal(value, before[name])}
    save_file(changed, lora.with_suffix(".fused.safetensors"))
    print(f"{lora.name}: changes {', '.join(sorted(changed))}")


PARTS = ("transformer", "unet", "text_encoder", "text_encoder_2")


def weights(pipeline) -> dict[str, torch.Tensor]:
    parts = {name: getattr(pipeline, name, None) for name in PARTS}
    return {
        f"{part}.{name.removeprefix('text_model.')}": value.detach().clone()
        for part, module in parts.items()
        if module is not None
        for name, value in module.state_dict().items()
    }


# --- GGUF ---

TYPES = {name: gguf.GGMLQuantizationType[name] for name in (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"
)}  # fmt: skip


def record_ggufs(folder: Path, flux: Path) -> None:
    random = np.random.default_rng(13)
    answers = {"blocks": record_blocks(folder / "blocks.gguf", random)}
    answers["flux"] = record_flux_gguf(folder / "flux.gguf", flux, random)
    answers["t5"] = record_t5_gguf(folder / "t5.gguf", flux)
    (folder / "gguf.json").write_text(json.dumps(answers, indent=1) + "\n")


def random_blocks(kind: gguf.GGMLQuantizationType, rows: int, columns: int, random) -> np.ndarray:
    """Any bits at all, but for the scales, which are modest numbers."""
    n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows, columns // n_values, n_bytes), dtype=np.uint8)
    scales = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    scales |= {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0]}
    for at in scales[kind.name]:
        values = (0.01 * random.standard_normal(blocks.shape[:2])).astype(np.float16)
        blocks[..., at : at + 2] = values.view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(rows, -1)


def record_blocks(path: Path, random) -> dict[str, str]:
    """Random blocks of every type, and gguf-py's reading of them."""
    writer = gguf.GGUFWriter(path, "blocks")
    for name, kind in TYPES.items():
        if name in ("F32", "F16", "BF16"):
            values = gguf.quantize(random.standard_normal((3, 512), dtype=np.float32), kind)
        else:
            values = random_blocks(kind, 3, 512, random)
        writer.add_tensor(name, values, raw_dtype=kind)
    finish(writer)
    return {tensor.name: digest(gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in gguf.GGUFReader(path).tensors}


def record_flux_gguf(path: Path, flux: Path, random) -> dict[str, str]:
    """The transformer in mixed types, cut as diffusers cuts it. Only rows of 256 can be of the K types; those are random."""
    model = {name: value.float() for name, value in load(flux / "transformer").items()}
    writer = gguf.GGUFWriter(path, "flux")
    of_rows_of_64 = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
    of_rows_of_256 = ["Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K"]
    for idx, (name, value) in enumerate(stored(flux_bfl(model), model).items()):
        value = value.numpy()
        if value.ndim == 1 or value.shape[1] % 32:
            # The reference does not split tensors of bfloat16.
            kind = TYPES["F32" if "norm" in name else "BF16" if "mlp" in name else "F16"]
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
        elif value.shape[1] == 256 and "mlp" in name:
            kind = TYPES[of_rows_of_256[idx % 5]]
            writer.add_tensor(name, random_blocks(kind, *value.shape, random), raw_dtype=kind)
        else:
            kind = TYPES[of_rows_of_64[idx % 5]]
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    finish(writer)
    convert = for_tiny(single_file_utils, "convert_flux_transformer_checkpoint_to_diffusers")
    single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]["checkpoint_mapping_fn"] = convert
    config = GGUFQuantizationConfig(compute_dtype=torch.float32)
    loaded = FluxTransformer2DModel.from_single_file(
        str(path), config=str(flux), subfolder="transformer", quantization_config=config, torch_dtype=torch.float32
    )
    read = {x.name: torch.from_numpy(gguf.dequantize(x.data, x.tensor_type)) for x in gguf.GGUFReader(path).tensors}
    exact = convert(read)
    # The reference multiplies by its scales in half precision, and gguf-py in single: the digests are gguf-py's.
    for name, value in loaded.state_dict().items():
        gap = (plain(value) - exact[name]).abs().max() / exact[name].abs().max()
        assert gap < 2e-3, f"{name}: diffusers reads it {gap:.1e} off"
    return {name: digest(value.numpy()) for name, value in sorted(exact.items())}


def plain(value: torch.Tensor) -> torch.Tensor:
    value = dequantize_gguf_tensor(value) if isinstance(value, GGUFParameter) else value
    return value.detach().float()


def record_t5_gguf(path: Path, flux: Path) -> dict[str, str]:
    """The T5 encoder under llama.cpp's names with its vocabulary in the header, as gguf-py reads it."""
    writer = gguf.GGUFWriter(path, "t5encoder")
    parts = {"SelfAttention.q": "attn_q", "SelfAttention.k": "attn_k", "SelfAttention.v": "attn_v"}
    parts |= {"SelfAttention.o": "attn_o", "SelfAttention.relative_attention_bias": "attn_rel_b"}
    parts |= {"DenseReluDense.wi_0": "ffn_gate", "DenseReluDense.wi_1": "ffn_up", "DenseReluDense.wo": "ffn_down"}
    names = {}
    for name, value in load(flux / "text_encoder_2").items():
        if name == "encoder.embed_tokens.weight":
            continue
        theirs = {"shared.weight": "token_embd.weight", "encoder.final_layer_norm.weight": "enc.output_norm.weight"}.get(name)
        if theirs is None:
            _, _, block, _, layer, *rest = name.split(".")
            part = ".".join(rest[:-1])
            norm = "attn_norm" if layer == "0" else "ffn_norm"
            theirs = f"enc.blk.{block}.{norm if part == 'layer_norm' else parts[part]}.weight"
        value = value.float().numpy()
        kind = TYPES["F32" if value.ndim == 1 or "rel_b" in theirs else "F16" if value.shape[1] % 32 else "Q8_0"]
        writer.add_tensor(theirs, gguf.quantize(value, kind), raw_dtype=kind)
        names[theirs] = name
    add_vocabulary(writer, flux / "tokenizer_2" / "spiece.model")
    finish(writer)
    tensors = gguf.GGUFReader(path).tensors
    return {names[tensor.name]: digest(gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in tensors}


def add_vocabulary(writer: gguf.GGUFWriter, path: Path) -> None:
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    extra = [f"<extra_id_{idx}>" for idx in reversed(range(100))]
    writer.add_tokenizer_model("t5")
    writer.add_token_list([piece.piece for piece in model.pieces] + extra)
    writer.add_token_scores([piece.score for piece in model.pieces] + [0.0] * 100)
    writer.add_token_types([piece.type for piece in model.pieces] + [4] * 100)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def digest(values: np.ndarray) -> str:
    """Of the values as little-endian f32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


logging.getLogger("diffusers").setLevel(logging.ERROR)

"""The architecture of pentimento-nano: FLUX.1-dev's classes at small size, and its two tokenizers."""

import json
from pathlib import Path

import sentencepiece
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlImg2ImgPipeline,
    FluxImg2ImgPipeline,
    FluxTransformer2DModel,
)
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

SEQUENCE_LENGTH = 24
CLIP_LENGTH = 77
# What a program that runs the model has to know beside the diffusers files; `pentimento.json` in the model folder.
DEFAULTS = {
    "name": "pentimento-nano",
    "description": "A small model of FLUX.1's architecture, trained from scratch: repaints pictures in named styles.",
    "licence": "MIT OR Apache-2.0",
    "native_pixels": 256,
    "max_sequence_length": SEQUENCE_LENGTH,
    "default_steps": 20,
    "default_guidance_scale": 3.5,
    "default_true_cfg_scale": 2.5,
    "default_strength": 0.6,
}
# The same for `pentimento-nano-canny`, where it differs.
CANNY_DEFAULTS = {
    **DEFAULTS,
    "name": "pentimento-nano-canny",
    "description": "pentimento-nano that paints under the edges of a picture.",
    "default_strength": 0.8,
}
WIDTH_TEXT = 128
N_MERGES = 1500
N_PIECES = 1900
N_EXTRA_IDS = 100
CLIP_SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def autoencoder(scaling_factor=1.0, shift_factor=0.0):
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=256,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    )


def transformer(n_control=0):
    """FLUX.1's transformer; with `n_control` channels of a control picture beside each image token's own 64."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64 + n_control,
        out_channels=64 if n_control else None,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=WIDTH_TEXT,
        pooled_projection_dim=WIDTH_TEXT,
        guidance_embeds=True,
        axes_dims_rope=(16, 24, 24),
    )


def scheduler():
    """FLUX.1-dev's dynamic shift, continued to small pictures.

    The smaller a picture, the less noise hides it, so the shift falls with the number of tokens; at 64 to 1,024 tokens
    (128 to 512 pixels) that makes it negative, and a usual `strength` of 0.6 leaves the composition visible.
    """
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        use_dynamic_shifting=True,
        shift=3.0,
        base_shift=-1.45,
        max_shift=-0.7,
        base_image_seq_len=64,
        max_image_seq_len=1024,
    )


def text_encoders(clip_tokenizer, t5_tokenizer):
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=WIDTH_TEXT,
            intermediate_size=4 * WIDTH_TEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=WIDTH_TEXT,
            max_position_embeddings=CLIP_LENGTH,
            hidden_act="quick_gelu",
            # 2 makes CLIP pool at the highest id, which is the end token: the convention of FLUX.1's own encoder.
            eos_token_id=2,
            bos_token_id=clip_tokenizer.bos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=N_PIECES + N_EXTRA_IDS,
            d_model=WIDTH_TEXT,
            d_ff=2 * WIDTH_TEXT,
            d_kv=32,
            num_heads=4,
            num_layers=2,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            dropout_rate=0.0,
        )
    )
    return clip, t5


def pipeline(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer):
    return FluxImg2ImgPipeline(**_components(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer))


def control_pipeline(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer):
    return FluxControlImg2ImgPipeline(**_components(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer))


def _components(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer):
    return {
        "scheduler": scheduler(),
        "vae": vae,
        "text_encoder": clip,
        "tokenizer": clip_tokenizer,
        "text_encoder_2": t5,
        "tokenizer_2": t5_tokenizer,
        "transformer": transformer,
    }


def cache_tokenizers(arguments):
    """The stage that trains both tokenizers on the prompts of all pictures, unless they are there.

    Writes `tokenizers/tokenizer` (CLIP's byte-pair format) and `tokenizers/tokenizer_2` (T5's unigram pieces).
    """
    folder = arguments.cache / "tokenizers"
    if folder.exists():
        return
    records = [
        record for path in (arguments.cache / "pictures").glob("*-*x*.json") for record in json.loads(path.read_text())
    ]
    prompts = sorted({prompt for record in records for prompt in record["prompts"]})
    _train_clip(prompts, folder / "tokenizer")
    _train_t5(prompts, folder / "tokenizer_2")


def load_tokenizers(folder: Path):
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), T5TokenizerFast.from_pretrained(folder / "tokenizer_2")


def _train_clip(prompts, folder):
    folder.mkdir(parents=True, exist_ok=True)
    trainer_side = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trainer_side.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    trainer_side.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer_side.train_from_iterator(
        prompts,
        trainers.BpeTrainer(
            vocab_size=1 << 16,
            min_frequency=2,
            end_of_word_suffix="</w>",
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    merges = [tuple(merge) for merge in json.loads(trainer_side.to_str())["model"]["merges"]][:N_MERGES]
    alphabet = _bytes_in_clip_order()
    tokens = alphabet + [byte + "</w>" for byte in alphabet] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                **special,
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": CLIP_LENGTH,
                "do_lower_case": True,
                "add_prefix_space": False,
                "errors": "replace",
            },
            indent=2,
        )
    )


def _bytes_in_clip_order():
    """The 256 byte symbols in the order of CLIP's vocabulary: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _train_t5(prompts, folder):
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(prompts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=N_PIECES,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        hard_vocab_limit=True,
        required_chars="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"-()&/",
        minloglevel=2,
    )
    corpus.unlink()
    (folder / "spiece.vocab").unlink()
    T5TokenizerFast(**_pieces(folder / "spiece.model"), extra_ids=N_EXTRA_IDS, model_max_length=512).save_pretrained(
        folder
    )
    # tokenizer.json says all of it, and the trainer's own file records the paths that it was trained from.
    (folder / "spiece.model").unlink()


def _pieces(path):
    """The vocabulary with its scores, T5's sentinel tokens after it, and the table that normalizes text."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces]
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(N_EXTRA_IDS))]
    return {"vocab": vocabulary, "_spm_precompiled_charsmap": proto.normalizer_spec.precompiled_charsmap}

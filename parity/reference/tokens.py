"""Records token ids: what the reference's tokenizers make of awkward prompts."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

PROMPTS = [
    "a",
    " ",
    "\n",
    "!!!",
    "...a...",
    "A RED Car",
    "a photo of a red car, cinematic lighting, highly detailed",
    "don't can't it's I'm you'll we've he'd they're O'Brien 'quoted'",
    "1 22 333 4444 1,000,000 3.14159 -5 1e10 ½ ² ③ 7th",
    "snake_case kebab-case camelCase SCREAMING path/to/file C:\\dir e@mail.com https://example.com/?a=b&c=d#e",
    "tab\there newline\nhere carriage\r\nreturn  double   triple",
    "\u00a0nbsp \u2003em \u2009thin \u3000ideographic \u200bzero-width \ufeffbom \u00adsoft-hyphen",
    "café CAFÉ cafe\u0301 naïve Ångström A\u030angström ﬀ ﬁ ﬃ ſ ß ẞ İ ı ĳ",
    "日本語のプロンプト、漢字とカタカナ。한국어 中文",
    "ＦＵＬＬＷＩＤＴＨ ｶﾀｶﾅ ①②③ ㎏ ㍿ ℃ ™ ©",
    "Привет мир! Γειά σου Κόσμε! שלום עולם مرحبا بالعالم हिन्दी ไทย",
    "😀 👩‍🚀 🏳️‍🌈 👍🏽 🇯🇵 ❤️ emoji",
    "math ∑∫√≈≠≤≥∞ arrows ←→⇒ quotes “curly” ‘single’ «guillemets» dashes – — ―",
    "(round) [square] {curly} <angle> |pipe| \\back/ ~tilde` ^caret *star* _under_ +plus= %percent$ #hash&",
    "<|endoftext|>",
    "before<|endoftext|>after <|startoftext|> <|ENDOFTEXT|>",
    "</s> <s> <pad> <unk> <extra_id_0> <extra_id_99> <extra_id_100>",
    "before</s>after <extra_id_5>glued",
    "▁ lower one eighth block ▁word a▁b",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00null \x07bell \x1bescape \x7fdelete",
    "combining: n\u0303 o\u0308 \u0301alone Z\u0351\u0343\u0306a\u0334lgo",
    "(masterpiece:1.2), ((best quality)), [blurry:0.5], {a|b} BREAK --ar 16:9",
    "trailing space ",
    "  leading spaces",
    "word " * 200,
    "a, b; c: d. e! f? " * 30,
]


def record_tokens(path: Path, goldens: Path) -> None:
    """For each tokenizer and prompt, the ids without padding, cut at the length that the models are given."""
    model = goldens / "models" / "flux-dev-tiny"
    tokenizers = {
        "clip_full": (goldens / "tokenizers" / "clip_full", 77),
        "clip_tiny": (model / "tokenizer", 77),
        "t5_tiny": (model / "tokenizer_2", 64),
        "t5_tiny_512": (model / "tokenizer_2", 512),
    }
    document = {"note": "no padding, truncation=True", "prompts": PROMPTS}
    for name, (folder, max_length) in tokenizers.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        document[name] = {"max_length": max_length, "ids": [ids(tokenizer, prompt, max_length) for prompt in PROMPTS]}
    path.write_text(json.dumps(document, ensure_ascii=True, separators=(",", ":")) + "\n")


def ids(tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int) -> list[int]:
    return tokenizer(prompt, truncation=True, max_length=max_length).input_ids

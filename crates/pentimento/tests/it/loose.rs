//! `pentimento paint` with weights that lie in no diffusers folder.

use crate::paint::{copy, goldens, input, paint, weights};
use std::fs;

fn format(name: &str) -> String {
    goldens().join("formats").join(name).display().to_string()
}

const QUICK: [&str; 4] = ["--steps", "2", "--max-sequence-length", "16"];

#[test]
fn quantized_files_and_loras_paint_from_a_folder_of_any_name() {
    let dir = weights(&[("flux-dev-tiny", "my files")]);
    let folder = dir.path().join("my files");
    for replaced in ["model_index.json", "scheduler", "transformer", "text_encoder_2", "tokenizer_2"] {
        let path = folder.join(replaced);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    fs::copy(format("flux.gguf"), folder.join("a.gguf")).unwrap();
    fs::copy(format("t5.gguf"), folder.join("b.gguf")).unwrap();
    let image = input("in_64x64");
    let with = |options: &[&str]| paint(&folder, &image, "a cat", &[&QUICK, options].concat());
    let lora = format("lora_flux_peft.safetensors");
    let plain = with(&[]).unwrap();
    assert!(with(&["--lora", &format!("{lora}:0")]).unwrap() == plain);
    assert!(with(&["--lora", &lora]).unwrap() != plain);
    let refused = with(&["--lora", &format("lora_sdxl_kohya.safetensors")]).unwrap_err();
    assert!(refused.contains("change nothing that this model has") && refused.lines().count() == 1, "{refused}");
    let only = paint(lora.as_ref(), &image, "a cat", &[]).unwrap_err();
    assert!(only.contains("only a LoRA") && only.lines().count() == 1, "{only}");
    assert!(with(&["--lora", "x:11"]).unwrap_err().contains("allowed: -10 to 10"));
}

#[test]
fn a_folder_with_nothing_but_a_lora_is_a_style_of_its_base() {
    let dir = weights(&[("sdxl-tiny", "sdxl-base"), ("sdxl-tiny", "anime")]);
    let image = input("in_64x64");
    let styled = |app: &str| paint(dir.path(), &image, "a cat", &["--app", app, "--steps", "2"]);
    let plain = styled("anime").unwrap();
    fs::remove_dir_all(dir.path().join("anime")).unwrap();
    fs::create_dir(dir.path().join("anime")).unwrap();
    fs::copy(format("lora_sdxl_kohya.safetensors"), dir.path().join("anime/style.safetensors")).unwrap();
    assert!(styled("anime").unwrap() != plain);
    copy(&dir.path().join("sdxl-base"), &dir.path().join("elsewhere"));
    fs::remove_dir_all(dir.path().join("sdxl-base")).unwrap();
    let alone = styled("anime").unwrap_err();
    assert!(alone.lines().count() == 1, "{alone}");
}

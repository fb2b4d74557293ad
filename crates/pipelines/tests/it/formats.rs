//! Weights in the layouts that people have, against diffusers' own loaders and against the folders that they are from.

use crate::golden::{Case, goldens, largest_difference};
use candle_core::{Device, Tensor};
use domain::id::ModelId;
use engine::{Engine, Fit, Plan, Unobserved};
use nn::Weights;
use nn::files::ModelFiles;
use pipelines::assembly::{self, Lora, Opened};
use pipelines::flux::FluxEngine;
use pipelines::sdxl::SdxlEngine;
use pipelines::tokenizer::{ClipTokenizer, T5Tokenizer};
use pipelines::{Parts, Precision, Residency};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FLUX_COMPONENTS: [&str; 4] = ["transformer", "text_encoder", "text_encoder_2", "vae"];
const SDXL_COMPONENTS: [&str; 4] = ["unet", "text_encoder", "text_encoder_2", "vae"];
/// How strongly the exporter fused the recorded LoRAs.
const LORA_SCALE: f64 = 0.75;

type Tensors = BTreeMap<String, Tensor>;

fn model(name: &str) -> PathBuf {
    goldens().join("models").join(name)
}

fn format(name: &str) -> PathBuf {
    goldens().join("formats").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A component's tensors, as a model would be given them.
fn tensors(files: &ModelFiles, component: &str) -> Tensors {
    let weights = Weights::open(files, component).unwrap();
    let shapes: Vec<(String, Vec<usize>)> =
        weights.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
    shapes.into_iter().map(|(name, shape)| (name.clone(), weights.tensor(&name, &shape).unwrap())).collect()
}

/// The component's tensors as a published file has them, which the exporter checked against diffusers' conversion.
fn published(layout: &str, folder: &Path, component: &str) -> Tensors {
    let ours = tensors(&ModelFiles::Folder(folder.to_owned()), component);
    let layouts = json(&format("layouts.json"));
    let line = |line: &Value| {
        let parts: Vec<Tensor> =
            line[2].as_array().unwrap().iter().map(|name| ours[name.as_str().unwrap()].clone()).collect();
        let rows = parts[0].dim(0).unwrap();
        let stored = match line[1].as_str().unwrap() {
            "same" => parts[0].clone(),
            "joined" => Tensor::cat(&parts, 0).unwrap(),
            "halves_swapped" => {
                let half = |at| parts[0].narrow(0, at, rows / 2).unwrap();
                Tensor::cat(&[half(rows / 2), half(0)], 0).unwrap()
            }
            "turned" => parts[0].t().unwrap().contiguous().unwrap(),
            "pointwise" => parts[0].reshape((rows, (), 1, 1)).unwrap(),
            other => panic!("{other}"),
        };
        (line[0].as_str().unwrap().to_owned(), stored)
    };
    layouts[layout].as_array().unwrap().iter().map(line).collect()
}

fn prefixed(prefix: &str, tensors: Tensors) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes = |tensor: &Tensor| -> Vec<u8> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().flat_map(f32::to_le_bytes).collect()
    };
    let raw: Vec<(&String, &[usize], Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (name, tensor.dims(), bytes(tensor))).collect();
    let views =
        raw.iter().map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A file, or a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    if from.is_dir() {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            copy(&path, &to.join(path.file_name().unwrap()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// What no shape tells of a model that is not of the published size: heads, groups, vocabularies.
fn with_small_files(name: &str, parts: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in parts {
        copy(&model(name).join(part), &dir.path().join(part));
    }
    dir
}

const FLUX_SMALL: [&str; 3] = ["tokenizer", "text_encoder/config.json", "vae/config.json"];

/// Flux-dev-tiny in loose files, under names that say nothing.
fn loose_flux(prefix: &str) -> TempDir {
    let (dir, flux) = (with_small_files("flux-dev-tiny", &FLUX_SMALL), model("flux-dev-tiny"));
    let files = ModelFiles::Folder(flux.clone());
    write(&dir.path().join("a.safetensors"), &prefixed(prefix, published("flux_bfl", &flux, "transformer")));
    write(&dir.path().join("b.safetensors"), &published("flux_ae", &flux, "vae"));
    write(&dir.path().join("c.safetensors"), &tensors(&files, "text_encoder"));
    write(&dir.path().join("d.safetensors"), &tensors(&files, "text_encoder_2"));
    copy(&flux.join("tokenizer_2/tokenizer.json"), &dir.path().join("tokenizer.json"));
    dir
}

fn all_in_one_flux() -> Tensors {
    let flux = model("flux-dev-tiny");
    let files = ModelFiles::Folder(flux.clone());
    let mut all = prefixed("model.diffusion_model.", published("flux_bfl", &flux, "transformer"));
    all.extend(prefixed("vae.", published("flux_ae", &flux, "vae")));
    all.extend(prefixed("text_encoders.clip_l.transformer.", tensors(&files, "text_encoder")));
    all.extend(prefixed("text_encoders.t5xxl.transformer.", tensors(&files, "text_encoder_2")));
    all.insert(
        "text_encoders.clip_l.logit_scale".into(),
        Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap(),
    );
    all
}

fn single_sdxl() -> Tensors {
    let sdxl = model("sdxl-tiny");
    let files = ModelFiles::Folder(sdxl.clone());
    let mut all = prefixed("model.diffusion_model.", published("sdxl_unet", &sdxl, "unet"));
    all.extend(prefixed("first_stage_model.", published("sdxl_vae", &sdxl, "vae")));
    all.extend(prefixed("conditioner.embedders.0.transformer.", tensors(&files, "text_encoder")));
    all.extend(prefixed("conditioner.embedders.1.model.", published("sdxl_open_clip", &sdxl, "text_encoder_2")));
    let scale = Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap();
    all.insert("conditioner.embedders.1.model.logit_scale".into(), scale.clone());
    all.insert("model_ema.decay".into(), scale);
    all
}

fn opened(path: &Path) -> ModelFiles {
    match assembly::open(path).unwrap() {
        Opened::Model(files) => files,
        Opened::Loras(files) => panic!("LoRAs: {files:?}"),
    }
}

fn refusal(path: &Path) -> String {
    assembly::open(path).expect_err("a refusal").to_string()
}

#[track_caller]
fn check_same(files: &ModelFiles, name: &str, components: &[&str]) {
    for component in components {
        let (ours, theirs) = (tensors(files, component), tensors(&ModelFiles::Folder(model(name)), component));
        let names: Vec<&String> = ours.keys().collect();
        assert_eq!(names, theirs.keys().collect::<Vec<_>>(), "{component}");
        for (name, tensor) in &ours {
            assert_eq!(tensor.dims(), theirs[name].dims(), "{component}: {name}");
            assert!(largest_difference(tensor, &theirs[name]) == 0.0, "{component}: {name}");
        }
    }
}

#[test]
fn loose_files_of_flux_hold_the_tensors_of_its_folder() {
    for prefix in ["", "model.diffusion_model."] {
        check_same(&opened(loose_flux(prefix).path()), "flux-dev-tiny", &FLUX_COMPONENTS);
    }
}

#[test]
fn one_file_with_all_of_flux_holds_the_tensors_of_its_folder() {
    let dir = with_small_files("flux-dev-tiny", &[&FLUX_SMALL[..], &["tokenizer_2"]].concat());
    write(&dir.path().join("anything.safetensors"), &all_in_one_flux());
    check_same(&opened(dir.path()), "flux-dev-tiny", &FLUX_COMPONENTS);
}

const SDXL_SMALL: [&str; 6] = [
    "tokenizer",
    "tokenizer_2",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "unet/config.json",
    "vae/config.json",
];

#[test]
fn a_checkpoint_of_sdxl_holds_the_tensors_of_its_folder() {
    let dir = with_small_files("sdxl-tiny", &SDXL_SMALL);
    write(&dir.path().join("anything.safetensors"), &single_sdxl());
    check_same(&opened(dir.path()), "sdxl-tiny", &SDXL_COMPONENTS);
}

#[test]
fn a_loose_file_fills_the_place_of_a_components_folder() {
    let (dir, flux) = (tempfile::tempdir().unwrap(), model("flux-dev-tiny"));
    copy(&flux, dir.path());
    std::fs::remove_dir_all(dir.path().join("transformer")).unwrap();
    write(&dir.path().join("x.safetensors"), &published("flux_bfl", &flux, "transformer"));
    // The folder's own autoencoder goes before a loose one.
    write(&dir.path().join("y.safetensors"), &Tensors::from([ones("decoder.mid.block_1.conv1.weight")]));
    check_same(&opened(dir.path()), "flux-dev-tiny", &FLUX_COMPONENTS);
}

fn ones(name: &str) -> (String, Tensor) {
    (name.to_owned(), Tensor::ones((1, 1), candle_core::DType::F32, &Device::Cpu).unwrap())
}

/// Shapes tell what the folder's own configuration says, but for what they cannot.
#[test]
fn configurations_are_told_from_shapes() {
    #[track_caller]
    fn check(files: &ModelFiles, name: &str, component: &str, hidden: &[&str]) {
        let told: Value = serde_json::from_str(&files.text(&format!("{component}/config.json")).unwrap()).unwrap();
        let theirs = json(&model(name).join(component).join("config.json"));
        for (key, value) in told.as_object().unwrap() {
            if let Some(expected) = theirs.get(key).filter(|expected| !expected.is_null())
                && !hidden.contains(&key.as_str())
            {
                assert_eq!(value, expected, "{component}: {key}");
            }
        }
    }
    let dir = loose_flux("");
    std::fs::remove_file(dir.path().join("vae/config.json")).unwrap();
    std::fs::remove_file(dir.path().join("text_encoder/config.json")).unwrap();
    let files = opened(dir.path());
    check(&files, "flux-dev-tiny", "transformer", &[]);
    check(&files, "flux-dev-tiny", "vae", &["norm_num_groups"]);
    check(&files, "flux-dev-tiny", "text_encoder", &["num_attention_heads", "hidden_act"]);
    check(&files, "flux-dev-tiny", "text_encoder_2", &[]);
    let scheduler = |files: &ModelFiles, name: &str| {
        let told = files.text("scheduler/scheduler_config.json").unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        let theirs = json(&model(name).join("scheduler/scheduler_config.json"));
        for (key, value) in told.as_object().unwrap() {
            assert_eq!(Some(value), theirs.get(key), "scheduler: {key}");
        }
    };
    scheduler(&files, "flux-dev-tiny");

    let dir = with_small_files("sdxl-tiny", &["tokenizer", "tokenizer_2"]);
    write(&dir.path().join("anything.safetensors"), &single_sdxl());
    let files = opened(dir.path());
    let of_size = ["norm_num_groups", "attention_head_dim", "addition_time_embed_dim", "sample_size"];
    check(&files, "sdxl-tiny", "unet", &of_size);
    check(&files, "sdxl-tiny", "vae", &["norm_num_groups"]);
    check(&files, "sdxl-tiny", "text_encoder", &["num_attention_heads", "hidden_act"]);
    check(&files, "sdxl-tiny", "text_encoder_2", &["num_attention_heads", "architectures"]);
    scheduler(&files, "sdxl-tiny");
}

fn engine(files: ModelFiles) -> FluxEngine {
    let parts = Parts { own: files, base: None, companion: None };
    FluxEngine::load(ModelId::parse("loose").unwrap(), &parts, &Residency::unlimited(Precision::F32)).unwrap()
}

fn plan(case: &Case) -> Plan {
    Plan { fit: Fit::Stretch, steps: Some(2), ..crate::parity::plan(case) }
}

#[test]
fn loose_files_paint_what_their_folder_paints() {
    let case = Case::open("flux_img2img");
    let paint = |mut engine: FluxEngine| engine.run(&plan(&case), &mut Unobserved).unwrap().images;
    assert!(paint(engine(opened(loose_flux("").path()))) == paint(case.engine()));
}

#[test]
fn a_checkpoint_of_sdxl_paints_what_its_folder_paints() {
    let dir = with_small_files("sdxl-tiny", &SDXL_SMALL);
    write(&dir.path().join("anything.safetensors"), &single_sdxl());
    let case = Case::open("sdxl_img2img");
    let plan = Plan { steps: Some(2), strength: Some(1.0), size: None, ..plan(&Case::open("flux_img2img")) };
    let paint = |files: ModelFiles| {
        let mut engine =
            SdxlEngine::load(ModelId::parse("loose").unwrap(), &files, &Residency::unlimited(Precision::F32)).unwrap();
        engine.run(&Plan { source: case.source(), ..plan.clone() }, &mut Unobserved).unwrap().images
    };
    assert!(paint(opened(dir.path())) == paint(ModelFiles::Folder(model("sdxl-tiny"))));
}

#[test]
fn loose_files_of_redux_hold_the_tensors_of_its_folder() {
    let dir = with_small_files("flux-redux-tiny", &[]);
    let folder = ModelFiles::Folder(model("flux-redux-tiny"));
    write(&dir.path().join("a.safetensors"), &tensors(&folder, "image_encoder"));
    write(&dir.path().join("b.safetensors"), &tensors(&folder, "image_embedder"));
    let files = opened(dir.path());
    check_same(&files, "flux-redux-tiny", &["image_encoder", "image_embedder"]);
    let told = |path: &str| -> Value { serde_json::from_str(&files.text(path).unwrap()).unwrap() };
    let theirs = |path: &str| json(&model("flux-redux-tiny").join(path));
    assert_eq!(told("model_index.json")["_class_name"], theirs("model_index.json")["_class_name"]);
    for (path, hidden) in [
        ("image_encoder/config.json", "num_attention_heads"),
        ("image_embedder/config.json", ""),
        ("feature_extractor/preprocessor_config.json", ""),
    ] {
        for (key, value) in told(path).as_object().unwrap().iter().filter(|(key, _)| *key != hidden) {
            assert_eq!(Some(value), theirs(path).get(key), "{path}: {key}");
        }
    }
}

#[test]
fn a_control_model_is_told_from_its_channels() {
    let dir =
        with_small_files("flux-control-tiny", &[&FLUX_SMALL[..], &["text_encoder", "tokenizer_2", "vae"]].concat());
    let folder = ModelFiles::Folder(model("flux-control-tiny"));
    write(&dir.path().join("a.safetensors"), &tensors(&folder, "transformer"));
    write(&dir.path().join("b.safetensors"), &tensors(&folder, "text_encoder_2"));
    assert!(opened(dir.path()).text("model_index.json").unwrap().contains("FluxControlPipeline"));
    // SDXL's autoencoder has other latents.
    std::fs::remove_dir_all(dir.path().join("vae")).unwrap();
    copy(&model("sdxl-tiny").join("vae"), &dir.path().join("vae"));
    assert!(refusal(dir.path()).contains("it paints 64 channels a token; the autoencoder has 4 a latent"));
}

#[test]
fn what_is_missing_twice_or_too_much_is_named() {
    let dir = loose_flux("");
    std::fs::rename(dir.path().join("b.safetensors"), dir.path().join("b.elsewhere")).unwrap();
    std::fs::rename(dir.path().join("d.safetensors"), dir.path().join("d.elsewhere")).unwrap();
    let missing = refusal(dir.path());
    assert!(missing.contains("the T5 text encoder (as in t5xxl_fp16.safetensors); an autoencoder"), "{missing}");
    std::fs::rename(dir.path().join("b.elsewhere"), dir.path().join("b.safetensors")).unwrap();
    std::fs::rename(dir.path().join("d.elsewhere"), dir.path().join("d.safetensors")).unwrap();

    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let no_vocabulary = refusal(dir.path());
    assert!(no_vocabulary.contains("put there the tokenizer.json"), "{no_vocabulary}");

    copy(&dir.path().join("b.safetensors"), &dir.path().join("e.safetensors"));
    let twice = refusal(dir.path());
    assert!(twice.contains("e.safetensors: an autoencoder") && twice.contains("b.safetensors too"), "{twice}");

    write(&dir.path().join("e.safetensors"), &Tensors::from([ones("redux_up.weight")]));
    let too_much = refusal(dir.path());
    assert!(too_much.contains("e.safetensors: a Redux embedder") && too_much.contains("does not take"), "{too_much}");

    write(&dir.path().join("e.safetensors"), &Tensors::from([ones("some.other.weight")]));
    let unknown = refusal(dir.path());
    assert!(unknown.contains("no model that we know; its first tensors are some.other.weight"), "{unknown}");

    std::fs::write(dir.path().join("e.safetensors"), b"\x08\0\0\0\0\0\0\0{}").unwrap();
    assert!(refusal(dir.path()).contains("e.safetensors"));
    assert!(refusal(Path::new("/nowhere/at.safetensors")).contains("no such file"));
}

#[test]
fn a_tensor_that_no_layer_takes_is_listed() {
    let (dir, flux) = (loose_flux(""), model("flux-dev-tiny"));
    let mut transformer = published("flux_bfl", &flux, "transformer");
    transformer.extend([ones("double_blocks.0.img_attn.extra.weight"), ones("scaled_fp8")]);
    write(&dir.path().join("a.safetensors"), &transformer);
    let parts = Parts { own: opened(dir.path()), base: None, companion: None };
    let error = FluxEngine::load(ModelId::parse("loose").unwrap(), &parts, &Residency::unlimited(Precision::F32))
        .err()
        .expect("an error")
        .to_string();
    assert!(error.contains("2 unused: double_blocks.0.img_attn.extra.weight, scaled_fp8"), "{error}");
}

/// Every tensor that diffusers' fused LoRA changes, and no other.
#[track_caller]
fn check_lora(lora: &str, fused: &str, name: &str, components: &[&str]) {
    let loras = [Lora { file: format(&format!("{lora}.safetensors")), scale: LORA_SCALE }];
    let folder = ModelFiles::Folder(model(name));
    let files = assembly::with_loras(folder.clone(), &loras).unwrap();
    let path = format(&format!("{fused}.fused.safetensors"));
    let mut expected: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    for component in components {
        let (ours, before) = (tensors(&files, component), tensors(&folder, component));
        for (name, tensor) in ours {
            let key = format!("{component}.{}", name.strip_prefix("text_model.").unwrap_or(&name));
            match expected.remove(&key) {
                None => assert!(largest_difference(&tensor, &before[&name]) == 0.0, "{key} changed"),
                Some(theirs) => {
                    let (difference, change) =
                        (largest_difference(&tensor, &theirs), largest_difference(&before[&name], &theirs));
                    assert!(difference < 1e-6 && change > 1e-2, "{key}: off by {difference:e} of {change:e}");
                }
            }
        }
    }
    assert!(expected.is_empty(), "not changed: {:?}", expected.keys());
}

#[test]
fn loras_in_every_spelling_change_what_diffusers_changes() {
    check_lora("lora_flux_kohya", "lora_flux_kohya", "flux-dev-tiny", &FLUX_COMPONENTS);
    check_lora("lora_flux_peft", "lora_flux_peft", "flux-dev-tiny", &FLUX_COMPONENTS);
    check_lora("lora_flux_header", "lora_flux_header", "flux-dev-tiny", &FLUX_COMPONENTS);
    check_lora("lora_sdxl_kohya", "lora_sdxl_kohya", "sdxl-tiny", &SDXL_COMPONENTS);
}

/// ComfyUI's spelling has the same numbers as kohya's, but for the text encoder, which it leaves out.
#[test]
fn a_fused_layer_is_changed_part_by_part() {
    let of = |name: &str| {
        let loras = [Lora { file: format(name), scale: 1.5 }];
        assembly::with_loras(opened(loose_flux("").path()), &loras).unwrap()
    };
    let (comfy, kohya) = (of("lora_flux_comfy.safetensors"), of("lora_flux_kohya.safetensors"));
    let (ours, theirs) = (tensors(&comfy, "transformer"), tensors(&kohya, "transformer"));
    let plain = tensors(&ModelFiles::Folder(model("flux-dev-tiny")), "transformer");
    let changed = |name: &str| largest_difference(&ours[name], &plain[name]);
    for part in ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"] {
        assert!(changed(&format!("single_transformer_blocks.1.{part}.weight")) > 1e-2, "{part}");
    }
    assert!(ours.iter().all(|(name, tensor)| largest_difference(tensor, &theirs[name]) == 0.0));
}

#[test]
fn two_loras_add_up_and_scale_zero_changes_nothing() {
    let folder = ModelFiles::Folder(model("flux-dev-tiny"));
    let lora = |scale| Lora { file: format("lora_flux_peft.safetensors"), scale };
    let with = |loras: &[Lora]| tensors(&assembly::with_loras(folder.clone(), loras).unwrap(), "transformer");
    let (plain, none) = (tensors(&folder, "transformer"), with(&[lora(0.0)]));
    let (once, twice) = (with(&[lora(1.0)]), with(&[lora(0.25), lora(0.75)]));
    let far = |a: &Tensors, b: &Tensors| a.iter().map(|(name, x)| largest_difference(x, &b[name])).fold(0.0, f64::max);
    assert!(far(&plain, &none) == 0.0 && far(&once, &twice) < 1e-6 && far(&plain, &once) > 1e-2);
}

#[test]
fn a_lora_of_another_model_lists_what_matches_nothing() {
    let refused = |name: &str, file: PathBuf| {
        let loras = [Lora { file, scale: 1.0 }];
        assembly::with_loras(ModelFiles::Folder(model(name)), &loras).expect_err("a refusal").to_string()
    };
    let other = refused("flux-dev-tiny", format("lora_sdxl_kohya.safetensors"));
    assert!(other.contains("change nothing that this model has") && other.contains("lora_te2_text_model"), "{other}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let matrix = |rows, columns| Tensor::ones((rows, columns), candle_core::DType::F32, &Device::Cpu).unwrap();
    let lora = |up: Tensor, down: Tensor| {
        let name = |which: &str| format!("transformer.x_embedder.{which}.weight");
        write(&file, &Tensors::from([(name("lora_B"), up), (name("lora_A"), down)]));
        refused("flux-dev-tiny", file.clone())
    };
    assert!(lora(matrix(65, 2), matrix(2, 64)).contains("2 of its tensors change nothing"));
    assert!(lora(matrix(64, 3), matrix(2, 64)).contains("2 of its tensors change nothing"));
    assert!(lora(matrix(64, 0), matrix(0, 64)).contains("2 of its tensors change nothing"));
    write(&file, &Tensors::from([ones("lora_unet_img_in.lokr_w1")]));
    assert!(refused("flux-dev-tiny", file.clone()).contains("a LoKr adapter"));
    write(
        &file,
        &Tensors::from([ones("transformer.x_embedder.lora_A.weight"), ones("transformer.x_embedder.dora_scale")]),
    );
    assert!(refused("flux-dev-tiny", file.clone()).contains("a DoRA adapter"));
    write(&file, &published("flux_ae", &model("flux-dev-tiny"), "vae"));
    assert!(refused("flux-dev-tiny", file).contains("a model, not a LoRA"));
}

#[test]
fn a_folder_with_nothing_but_loras_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    copy(&format("lora_flux_peft.safetensors"), &dir.path().join("style.safetensors"));
    let Opened::Loras(files) = assembly::open(dir.path()).unwrap() else { panic!("a model") };
    assert_eq!(files, [dir.path().join("style.safetensors")]);
}

fn digest(tensor: &Tensor) -> String {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Bit for bit what gguf-py makes of the same files, cut as diffusers cuts them.
#[test]
fn quantized_files_hold_the_tensors_that_gguf_py_reads() {
    let (dir, flux) = (with_small_files("flux-dev-tiny", &FLUX_SMALL), model("flux-dev-tiny"));
    copy(&format("flux.gguf"), &dir.path().join("a.gguf"));
    copy(&format("t5.gguf"), &dir.path().join("b.gguf"));
    write(&dir.path().join("c.safetensors"), &tensors(&ModelFiles::Folder(flux.clone()), "text_encoder"));
    copy(&flux.join("vae"), &dir.path().join("vae"));
    let files = opened(dir.path());
    let recorded = json(&format("gguf.json"));
    for (name, component) in [("flux", "transformer"), ("t5", "text_encoder_2")] {
        let expected = recorded[name].as_object().unwrap();
        let ours = tensors(&files, component);
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            expected.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        for (name, tensor) in &ours {
            assert_eq!(Some(digest(tensor).as_str()), expected[name].as_str(), "{component}: {name}");
        }
    }
    // The vocabulary comes out of the header, and the whole paints.
    let (ours, theirs) =
        (T5Tokenizer::open(&files, "tokenizer_2"), T5Tokenizer::open(&ModelFiles::Folder(flux), "tokenizer_2"));
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    for text in ["", "a photo of a cat", "  naïve\tcafé — ½ <extra_id_0>", "日本"] {
        assert_eq!(ours.encode(text, 32).unwrap(), theirs.encode(text, 32).unwrap(), "{text}");
    }
    let case = Case::open("flux_img2img");
    assert!(engine(files).run(&plan(&case), &mut Unobserved).unwrap().effective.steps_run > 0);
}

#[test]
fn the_vocabulary_of_clip_travels_inside_the_program() {
    let (dir, flux) = (loose_flux(""), model("flux-dev-tiny"));
    std::fs::remove_dir_all(dir.path().join("tokenizer")).unwrap();
    assert!(refusal(dir.path()).contains("is not the published one"));
    // A table of the published size.
    let mut clip = tensors(&ModelFiles::Folder(flux), "text_encoder");
    let table = Tensor::zeros((49408, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    clip.insert("text_model.embeddings.token_embedding.weight".into(), table);
    write(&dir.path().join("c.safetensors"), &clip);
    let tokenizer = ClipTokenizer::open(&opened(dir.path()), "tokenizer").unwrap();
    let tokens = tokenizer.encode("a photo of a cat").unwrap();
    assert_eq!(tokens[..8], [49406, 320, 1125, 539, 320, 2368, 49407, 49407]);
}

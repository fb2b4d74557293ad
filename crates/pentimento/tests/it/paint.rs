//! `pentimento paint` gives the reference implementation's picture for the same seed, app by app.

use crate::process::run;
use domain::request::OutputFormat;
use imaging::{Metadata, Picture};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens"))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A folder of weights: each recorded model under the name of the one that it stands for.
pub(crate) fn weights(models: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (recorded, name) in models {
        copy(&goldens().join("models").join(recorded), &dir.path().join(name));
    }
    dir
}

pub(crate) fn input(name: &str) -> String {
    goldens().join(format!("inputs/{name}.png")).display().to_string()
}

/// Paints, and returns the picture or what the program said instead.
pub(crate) fn paint(weights: &Path, image: &str, prompt: &str, options: &[&str]) -> Result<Picture, String> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.png");
    let fixed = ["paint", image, prompt, "--output", out.to_str().unwrap(), "--weights", weights.to_str().unwrap()];
    let ended = run(&[&fixed, options].concat());
    if ended.status.success() {
        Ok(imaging::decode(&fs::read(out).unwrap()).unwrap())
    } else {
        Err(String::from_utf8(ended.stderr).unwrap())
    }
}

/// As recorded, but for a level that rounding may move.
#[track_caller]
fn is_recorded(painted: Result<Picture, String>, case: &str) {
    let recorded = imaging::decode(&fs::read(goldens().join("cases").join(case).join("image.png")).unwrap()).unwrap();
    let painted = painted.unwrap();
    assert_eq!(painted.size(), recorded.size());
    let levels = painted.pixels().iter().zip(recorded.pixels());
    let off = levels.map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap();
    assert!(off <= 1, "{case}: a level is off by {off}");
}

const CAR: &str = "a photo of a red car, cinematic lighting, highly detailed";
const MOUNTAIN: &str = "watercolor painting of a mountain landscape at sunset";

#[test]
fn flux_canny_paints_along_the_edges_of_the_picture() {
    let weights = weights(&[("flux-control-tiny", "flux-canny")]);
    let common = ["--app", "flux-canny", "--steps", "4", "--guidance-scale", "30", "--max-sequence-length", "64"];
    let with = |prompt: &str, options: &[&str]| {
        paint(weights.path(), &input("in_96x64"), prompt, &[&common, options].concat())
    };
    is_recorded(with(CAR, &["--seed", "21", "--strength", "1"]), "flux_control_canny");
    is_recorded(with(MOUNTAIN, &["--seed", "22"]), "flux_control_img2img");
    let given = ["--seed", "22", "--control-image", &input("canny_96x64")];
    is_recorded(with(MOUNTAIN, &given), "flux_control_img2img");
}

#[test]
fn without_weights_flux_canny_paints_along_edges_with_the_embedded_model() {
    let (none, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let photograph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/photo.jpg");
    let source = imaging::decode(&fs::read(&photograph).unwrap()).unwrap();
    // From noise, nothing but the edges can tell the model what is where.
    let options = ["--app", "flux-canny", "--strength", "1", "--seed", "3"];
    let with = |control: &[&str]| {
        paint(none.path(), photograph.to_str().unwrap(), "comic", &[&options, control].concat()).unwrap()
    };
    let under_edges = with(&[]);
    let black = folder.path().join("black.png");
    let metadata = Metadata { software: String::new(), model: String::new(), seed: None };
    let png = imaging::encode(&Picture::filled(source.size(), [0; 3]), OutputFormat::Png, &metadata).unwrap();
    fs::write(&black, png).unwrap();
    let under_nothing = with(&["--control-image", black.to_str().unwrap()]);
    let (along, elsewhere) = (edges_found_again(&source, &under_edges), edges_found_again(&source, &under_nothing));
    assert!(along > 0.1 && along > elsewhere + 0.1, "more than by chance: {along}, without control {elsewhere}");
}

/// How many of a picture's edges another has within two pixels, less the share that chance would find.
fn edges_found_again(source: &Picture, painted: &Picture) -> f64 {
    const WITHIN: usize = 2;
    let (width, height) = (source.size().width as usize, source.size().height as usize);
    assert_eq!(source.size(), painted.size());
    let edges = |picture: &Picture| -> Vec<bool> {
        imaging::canny(picture, imaging::Canny::default())
            .pixels()
            .as_chunks::<3>()
            .0
            .iter()
            .map(|x| x[0] > 0)
            .collect()
    };
    let (wanted, there) = (edges(source), edges(painted));
    let is_near = |idx: usize| {
        let (y, x) = (idx / width, idx % width);
        let columns = x.saturating_sub(WITHIN)..(x + WITHIN + 1).min(width);
        (y.saturating_sub(WITHIN)..(y + WITHIN + 1).min(height)).any(|y| columns.clone().any(|x| there[y * width + x]))
    };
    let share = |places: &mut dyn Iterator<Item = usize>| {
        let near: Vec<bool> = places.map(is_near).collect();
        near.iter().filter(|is_near| **is_near).count() as f64 / near.len() as f64
    };
    share(&mut (0..width * height).filter(|idx| wanted[*idx])) - share(&mut (0..width * height))
}

#[test]
fn flux_depth_paints_under_the_depth_map_of_the_picture() {
    let weights = weights(&[("flux-control-tiny", "flux-depth"), ("depth-anything-tiny", "depth-anything-v2-small")]);
    let common = ["--app", "flux-depth", "--max-sequence-length", "64"];
    let with = |prompt: &str, options: &[&str]| {
        paint(weights.path(), &input("in_64x64"), prompt, &[&common, options].concat())
    };
    is_recorded(with(CAR, &["--seed", "206", "--strength", "1", "--steps", "3"]), "flux_control_depth");
    let from_reference = ["--seed", "207", "--steps", "4"];
    is_recorded(with(MOUNTAIN, &from_reference), "flux_control_depth_img2img");
    let map = input("depth_64x64");
    let given = [&from_reference[..], &["--control-image", &map]].concat();
    is_recorded(with(MOUNTAIN, &given), "flux_control_depth_img2img");
}

#[test]
fn flux_depth_without_an_estimator_says_what_to_install() {
    let alone = weights(&[("flux-control-tiny", "flux-depth")]);
    let said = paint(alone.path(), &input("in_64x64"), CAR, &["--app", "flux-depth"]).unwrap_err();
    assert!(said.contains("no weights for depth-anything-v2-large are installed"), "{said}");
}

#[test]
fn a_control_model_alone_is_served_by_its_pipeline_and_says_which_app_it_is_for() {
    let folder = goldens().join("models/flux-control-tiny");
    let options = ["--steps", "4", "--seed", "21", "--strength", "1", "--max-sequence-length", "64"];
    let with_app = [&options[..], &["--app", "flux-canny"]].concat();
    is_recorded(paint(&folder, &input("in_96x64"), CAR, &with_app), "flux_control_canny");
    let said = paint(&folder, &input("in_96x64"), CAR, &options).unwrap_err();
    assert!(said.contains("use the app flux-canny or flux-depth"), "{said}");
}

#[test]
fn flux_redux_paints_from_a_picture_with_and_without_a_prompt() {
    let weights = weights(&[("flux-redux-tiny", "flux-redux"), ("flux-dev-tiny", "flux-dev")]);
    let common = ["--app", "flux-redux", "--steps", "3", "--guidance-scale", "2.5"];
    let with = |image: &str, prompt: &str, options: &[&str]| {
        paint(weights.path(), &input(image), prompt, &[&common, options].concat())
    };
    // As good as 0, which would return the picture: the full weight.
    let full = ["--width", "96", "--height", "64", "--strength", "1e-12"];
    is_recorded(with("in_100x70", "", &[&full[..], &["--seed", "41"]].concat()), "flux_redux");
    is_recorded(with("in_100x70", CAR, &[&full[..], &["--seed", "42"]].concat()), "flux_redux_text");
    // The app's own strength, 0.7, leaves the tokens 0.3 of their weight.
    is_recorded(with("in_64x64", "", &["--seed", "43"]), "flux_redux_scale");
}

#[test]
fn redux_without_its_base_says_what_to_install() {
    let alone = weights(&[("flux-redux-tiny", "flux-redux")]);
    let said = paint(alone.path(), &input("in_64x64"), "", &["--app", "flux-redux"]).unwrap_err();
    assert!(said.contains("no weights for flux-dev are installed"), "{said}");
    let folder = goldens().join("models/flux-redux-tiny");
    let said = paint(&folder, &input("in_64x64"), "", &["--app", "flux-redux"]).unwrap_err();
    assert!(said.contains("Redux adds to a FLUX.1 model"), "{said}");
}

#[test]
fn sdxl_paints_with_its_own_schedule_and_prompts() {
    let weights = weights(&[("sdxl-tiny", "sdxl-base")]);
    let with = |image: &str, options: &[&str]| {
        paint(weights.path(), &input(image), CAR, &[&["--app", "sdxl"], options].concat())
    };
    let negative = ["--negative-prompt", "blurry, low quality"];
    let options = ["--strength", "0.6", "--steps", "5", "--seed", "51"];
    is_recorded(with("in_96x64", &[&options[..], &negative].concat()), "sdxl_img2img");
    // The app's own guidance and strength.
    is_recorded(with("in_64x64", &["--steps", "3", "--seed", "204"]), "sdxl_no_negative");
    let alone = paint(&goldens().join("models/sdxl-tiny"), &input("in_64x64"), CAR, &["--steps", "3", "--seed", "204"]);
    is_recorded(alone, "sdxl_no_negative");
}

#[test]
fn the_deployed_apps_paint_with_the_checkpoint_installed_for_them() {
    let weights = weights(&[("sdxl-tiny", "qolaba-style"), ("sdxl-turbo-tiny", "turbo-vision")]);
    // The style's prompt, what it avoids, and its scheduler.
    let styled = ["--app", "qolaba-style", "--steps", "6", "--seed", "222"];
    is_recorded(paint(weights.path(), &input("in_64x64"), CAR, &styled), "sdxl_preset");
    let turbo = ["--app", "turbo-vision", "--steps", "4", "--strength", "1", "--seed", "201"];
    is_recorded(paint(weights.path(), &input("in_64x64"), MOUNTAIN, &turbo), "sdxl_turbo_4_steps");
}

//! What makes feature maps larger and smaller, against torch.

use candle_core::{Device, Tensor};
use nn::Weights;
use nn::conv::{ConvTranspose2d, Extent, Squares};
use nn::files::ModelFiles;
use nn::interpolate::{Interpolation, interpolate};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static FILE: LazyLock<&'static [u8]> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/depth/layers.safetensors");
    std::fs::read(path).expect("the recorded layers").leak()
});

fn recorded() -> HashMap<String, Tensor> {
    candle_core::safetensors::load_buffer(&FILE, &Device::Cpu).unwrap()
}

#[track_caller]
fn check(name: &str, ours: &Tensor, theirs: &Tensor, tolerance: f32) {
    assert_eq!(ours.dims(), theirs.dims(), "{name}");
    let difference = (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let worst = difference.into_iter().fold(0.0, |max, x| if x <= max { max } else { x });
    assert!(worst <= tolerance, "{name} is off by {worst:e}");
}

#[test]
fn maps_are_interpolated_as_torch_does() {
    let recorded = recorded();
    let kinds = [
        ("bilinear", Interpolation::Bilinear),
        ("bilinear_corners", Interpolation::BilinearCorners),
        ("bicubic", Interpolation::Bicubic),
    ];
    for (name, interpolation) in kinds {
        let input = &recorded[&format!("{name}.input")];
        for (height, width) in [(5, 7), (10, 14), (3, 4), (1, 1), (1, 20), (37, 53)] {
            let name = format!("{name}.{height}x{width}");
            let ours = interpolate(input, Extent { height, width }, interpolation).unwrap();
            check(&name, &ours, &recorded[&name], 3e-6);
        }
    }
}

#[test]
fn a_map_without_a_side_cannot_be_interpolated() {
    let map = Tensor::zeros((1, 2, 3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(interpolate(&map, Extent { height: 0, width: 4 }, Interpolation::Bilinear).is_err());
}

#[test]
fn each_pixel_becomes_a_square() {
    let recorded = recorded();
    let files = ModelFiles::Embedded(Arc::from([("layers/model.safetensors", *FILE)]));
    let weights = Weights::open(&files, "layers").unwrap();
    for side in [2, 4] {
        let name = format!("conv_transpose_{side}");
        let conv = ConvTranspose2d::new(&weights.at(&name), Squares { inputs: 6, outputs: 4, side }).unwrap();
        let ours = conv.forward(&recorded[&format!("{name}.input")]).unwrap();
        check(&name, &ours, &recorded[&format!("{name}.output")], 3e-6);
    }
}

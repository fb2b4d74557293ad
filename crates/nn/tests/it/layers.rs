//! Single layers on inputs that tell: a wrong epsilon or the other GELU, which a whole run would hide, shows here.

use candle_core::{Device, Tensor};
use nn::attention::{Heads, Mask, attend};
use nn::conv::{Conv2d, Form, Padding};
use nn::embedding::timestep_embedding;
use nn::files::ModelFiles;
use nn::linear::Linear;
use nn::norm::{GroupNorm, LayerNorm, RmsNorm, modulated_layer_norm};
use nn::rope::Rope;
use nn::{Activation, Weights, activate};
use std::sync::{Arc, LazyLock};

static FILE: LazyLock<&'static [u8]> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/layers.safetensors");
    std::fs::read(path).expect("the recorded layers").leak()
});

/// One recorded case of one layer.
struct Case {
    tensors: std::collections::HashMap<String, Tensor>,
    weights: Weights,
    name: &'static str,
}

impl Case {
    fn open(name: &'static str) -> Self {
        let tensors = candle_core::safetensors::load_buffer(&FILE, &Device::Cpu).unwrap();
        let files = ModelFiles::Embedded(Arc::from([("layers/model.safetensors", *FILE)]));
        let weights = Weights::open(&files, "layers").unwrap().at(name);
        Self { tensors, weights, name }
    }

    fn tensor(&self, role: &str) -> Tensor {
        self.tensors.get(&format!("{}.{role}", self.name)).unwrap_or_else(|| panic!("no {role}")).clone()
    }

    /// The layer gives what was recorded, to `tolerance`.
    #[track_caller]
    fn gives(&self, role: &str, ours: &Tensor, tolerance: f64) {
        let theirs = self.tensor(role);
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (ours, theirs) = (flat(ours), flat(&theirs));
        assert_eq!(ours.len(), theirs.len());
        let differences = ours.iter().zip(&theirs).map(|(a, b)| f64::from((a - b).abs()));
        let worst = differences.fold(0.0, |max, x| if x.is_nan() || x > max { x } else { max });
        assert!(worst <= tolerance, "{}.{role} is off by {worst:e}", self.name);
    }
}

#[test]
fn every_activation_is_of_its_flavor() {
    let flavors = [
        ("gelu.tanh", Activation::GeluTanh),
        ("gelu.new", Activation::GeluTanh),
        ("gelu.erf", Activation::GeluErf),
        ("gelu.quick", Activation::QuickGelu),
        ("silu.plain", Activation::Silu),
    ];
    for (name, activation) in flavors {
        let case = Case::open(name);
        case.gives("output", &activate(activation, &case.tensor("input")).unwrap(), 3e-6);
    }
}

#[test]
fn every_norm_has_its_epsilon() {
    for (name, eps) in [("layer_norm.eps1e-5", 1e-5), ("layer_norm.eps1e-6", 1e-6)] {
        let case = Case::open(name);
        let norm = LayerNorm::new(&case.weights, 64, eps).unwrap();
        case.gives("output", &norm.forward(&case.tensor("input")).unwrap(), 1e-5);
    }
    for (name, eps) in [("rms_norm.eps1e-5", 1e-5), ("rms_norm.eps1e-6", 1e-6), ("rms_norm.t5", 1e-6)] {
        let case = Case::open(name);
        let norm = RmsNorm::new(&case.weights, 64, eps).unwrap();
        case.gives("output", &norm.forward(&case.tensor("input")).unwrap(), 1e-5);
    }
    let groups = [
        ("group_norm.groups8_eps1e-5", 8, 32, 1e-5),
        ("group_norm.groups8_eps1e-6", 8, 32, 1e-6),
        ("group_norm.groups32_eps1e-5", 32, 64, 1e-5),
        ("group_norm.groups32_eps1e-6", 32, 64, 1e-6),
    ];
    for (name, n_groups, n_channels, eps) in groups {
        let case = Case::open(name);
        let norm = GroupNorm::new(&case.weights, n_groups, n_channels, eps).unwrap();
        case.gives("output", &norm.forward(&case.tensor("input")).unwrap(), 1e-5);
        case.gives("output_silu", &norm.forward_silu(&case.tensor("input")).unwrap(), 1e-5);
    }
}

#[test]
fn adaptive_norms_order_scale_and_shift_as_the_reference_does() {
    for (name, n_parts, scale, shift) in
        [("ada_norm.zero", 6, 1, 0), ("ada_norm.zero_single", 3, 1, 0), ("ada_norm.continuous", 2, 0, 1)]
    {
        let case = Case::open(name);
        let linear = Linear::new(&case.weights.at("linear"), 64, n_parts * 64).unwrap();
        let vec = activate(Activation::Silu, &case.tensor("vec")).unwrap();
        let parts = linear.forward(&vec).unwrap().chunk(n_parts, 1).unwrap();
        let ours = modulated_layer_norm(&case.tensor("input"), 1e-6, &parts[scale], &parts[shift]).unwrap();
        case.gives("output", &ours, 1e-5);
    }
}

#[test]
fn timesteps_are_embedded_cosine_first() {
    for (name, n) in [("timestep_embedding.dim256", 256), ("timestep_embedding.dim320", 320)] {
        let case = Case::open(name);
        let timesteps = case.tensor("input").to_vec1::<f32>().unwrap();
        let rows: Vec<Tensor> = timesteps.iter().map(|timestep| timestep_embedding(*timestep, n).unwrap()).collect();
        // An angle of 30,000 is uncertain by 1.2e-3 from one processor to the next.
        case.gives("output", &Tensor::cat(&rows, 0).unwrap(), 2e-3);
    }
}

#[test]
fn positions_turn_interleaved_pairs() {
    for (name, axes) in [("rope.axes16_56_56", [16, 56, 56]), ("rope.axes4_14_14", [4, 14, 14])] {
        let case = Case::open(name);
        let ids = case.tensor("ids").to_vec2::<f32>().unwrap();
        let positions: Vec<Vec<f64>> = ids.iter().map(|id| id.iter().map(|x| f64::from(*x)).collect()).collect();
        let rope = Rope::new(&positions, &axes).unwrap();
        let input = case.tensor("input");
        let (b, n_tokens, n_heads, dim) = input.dims4().unwrap();
        let ours = rope.rotate(&input.reshape((b, n_tokens, n_heads * dim)).unwrap()).unwrap();
        case.gives("output", &ours, 2e-6);
    }
}

#[test]
fn attention_scales_and_masks() {
    for (name, mask) in
        [("attention.plain", Mask::None), ("attention.sharp", Mask::None), ("attention.causal", Mask::Causal)]
    {
        let case = Case::open(name);
        // (b, heads, tokens, dim) to (b, tokens, heads · dim)
        let side_by_side =
            |role: &str| case.tensor(role).transpose(1, 2).unwrap().contiguous().unwrap().flatten_from(2).unwrap();
        let (_, n_heads, _, dim) = case.tensor("q").dims4().unwrap();
        let heads = Heads { mask, ..Heads::plain(n_heads, dim) };
        let ours = attend(&side_by_side("q"), &side_by_side("k"), &side_by_side("v"), heads).unwrap();
        let (b, n_tokens, _) = ours.dims3().unwrap();
        let ours = ours.reshape((b, n_tokens, n_heads, dim)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        case.gives("output", &ours, 3e-5);
    }
}

#[test]
fn feed_forwards_have_their_gelu() {
    for (name, activation) in
        [("feed_forward.gelu_tanh", Activation::GeluTanh), ("feed_forward.gelu_erf", Activation::GeluErf)]
    {
        let case = Case::open(name);
        let proj = Linear::new(&case.weights.at("net.0.proj"), 32, 128).unwrap();
        let out = Linear::new(&case.weights.at("net.2"), 128, 32).unwrap();
        let ours = out.forward(&proj.forward_activated(&case.tensor("input"), activation).unwrap()).unwrap();
        case.gives("output", &ours, 5e-5);
    }
}

#[test]
fn convolutions_pad_as_the_reference_does() {
    let halve = Form { stride: 2, padding: Padding { before: 0, after: 1 }, ..Form::same(16, 16) };
    let double = Form { upsample: true, ..Form::same(16, 16) };
    let forms = [
        ("conv.k3", "", Form::same(16, 24)),
        ("conv.k1", "", Form::pointwise(16, 24)),
        ("conv.downsample", "Conv2d_0", halve),
        ("conv.upsample", "conv", double),
    ];
    for (name, segment, form) in forms {
        let case = Case::open(name);
        let conv = Conv2d::new(&case.weights.at(segment), form).unwrap();
        case.gives("output", &conv.forward(&case.tensor("input")).unwrap(), 1e-5);
    }
}

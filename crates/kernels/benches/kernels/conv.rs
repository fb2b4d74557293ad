//! Convolutions at the shapes of an autoencoder that decodes 512x512 pixels. Operations are those of the direct
//! convolution, however it is computed, so that a share can exceed the whole.

use crate::meter::{Work, measure, numbers};
use criterion::Criterion;
use kernels::conv::{Conv, Extent, Form, PackedKernel, Padding, convolve};
use kernels::products::{Products, multiplies_bf16};

pub(crate) fn bench(criterion: &mut Criterion) {
    let halve = Form { stride: 2, padding: Padding { before: 0, after: 1 }, ..Form::same(128, 128) };
    let shapes = [
        ("3x3", Form::same(128, 128), 512),
        ("3x3", Form::same(256, 256), 256),
        ("3x3", Form::same(512, 512), 128),
        ("3x3", Form::same(512, 512), 64),
        ("3x3 doubling", Form { upsample: true, ..Form::same(512, 512) }, 64),
        ("3x3 halving", halve, 512),
        ("1x1", Form::pointwise(512, 256), 256),
    ];
    for (kind, form, side) in shapes {
        let n_taps = form.inputs * form.side * form.side;
        let weight: Vec<f32> = numbers(form.outputs * n_taps, 1).into_iter().map(to_bf16).collect();
        let weight = PackedKernel::pack(&weight, form.outputs);
        let bias = numbers(form.outputs, 2);
        let input = numbers(form.inputs * side * side, 3);
        let extent = Extent { height: side, width: side };
        let output = form.output_extent(extent);
        let mut out = vec![0.0; form.outputs * output.height * output.width];
        let operations = 2 * out.len() * n_taps;
        for (format, products, work) in
            [("f32", Products::F32, Work::F32(operations)), ("bf16", Products::Bf16, Work::Bf16(operations))]
        {
            if products == Products::Bf16 && !multiplies_bf16() {
                continue;
            }
            let conv = Conv { weight: &weight, bias: &bias, residual: None, form, products };
            let name = format!("conv {kind} {format} {} to {} channels, {side}x{side}", form.inputs, form.outputs);
            measure(criterion, &name, work, || convolve(&conv, &input, extent, &mut out));
        }
    }
}

/// A number near it that bf16 holds, as most checkpoints' weights are.
fn to_bf16(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0xffff_0000)
}

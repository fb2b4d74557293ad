//! Convolutions 3x3 at the shapes of an autoencoder that decodes 512x512 pixels. Operations are those of the direct
//! convolution, however it is computed.

use crate::meter::{Work, measure, numbers};
use criterion::Criterion;
use kernels::conv::{Conv, Extent, Form, convolve};

/// Channels, pixels on a side.
const SHAPES: [(usize, usize); 3] = [(128, 512), (256, 256), (512, 64)];

pub(crate) fn bench(criterion: &mut Criterion) {
    for (channels, side) in SHAPES {
        let form = Form::same(channels, channels);
        let (weight, bias) = (numbers(9 * channels * channels, 1), numbers(channels, 2));
        let input = numbers(channels * side * side, 3);
        let mut out = vec![0.0; input.len()];
        let conv = Conv { weight: &weight, bias: &bias, form };
        let extent = Extent { height: side, width: side };
        let operations = 2 * 9 * channels * channels * side * side;
        measure(criterion, &format!("conv 3x3 f32 {channels} channels, {side}x{side}"), Work::F32(operations), || {
            convolve(&conv, &input, extent, &mut out);
        });
    }
}

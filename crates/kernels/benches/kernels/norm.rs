//! Normalizations: group norm with SiLU as in an autoencoder, layer norm and RMS norm as in FLUX.1. What counts are the
//! bytes of the input and of the output, once each.

use crate::meter::{Work, measure, numbers};
use criterion::Criterion;
use kernels::norm::{Affine, GroupNorm, group_norm, layer_norm, rms_norm};

pub(crate) fn bench(criterion: &mut Criterion) {
    for (channels, side) in [(128, 512), (512, 64)] {
        let (weight, bias) = (numbers(channels, 1), numbers(channels, 2));
        let input = numbers(channels * side * side, 3);
        let mut out = vec![0.0; input.len()];
        let norm = GroupNorm { n_groups: 32, eps: 1e-6, weight: &weight, bias: &bias, silu: true, statistics: None };
        let name = format!("group norm + SiLU {channels} channels, {side}x{side}");
        measure(criterion, &name, Work::Bytes(8 * input.len()), || group_norm(&input, &mut out, norm));
    }
    let (rows, width) = (1536, 3072);
    let (scale, shift) = (numbers(width, 1), numbers(width, 2));
    let input = numbers(rows * width, 3);
    let mut out = vec![0.0; input.len()];
    let affine = Affine::Modulation { scale: &scale, shift: &shift };
    measure(criterion, &format!("layer norm {rows}x{width}, modulated"), Work::Bytes(8 * input.len()), || {
        layer_norm(&input, &mut out, width, 1e-6, affine);
    });
    let weight = numbers(128, 4);
    measure(criterion, &format!("RMS norm {}x128", rows * width / 128), Work::Bytes(8 * input.len()), || {
        rms_norm(&mut out, &weight, 1e-6);
    });
}

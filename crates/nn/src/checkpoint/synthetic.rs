//! Numbers of tensors that nobody has trained: always the same for a name, without pattern, on the usual scale.

use rayon::prelude::*;

/// Elements that one thread makes at a time.
const CHUNK: usize = 1 << 16;
/// How far a norm's scale is from one, and a bias from zero.
const SPREAD: f32 = 0.05;

/// Numbers that 16 bits hold, as those of published weights. What multiplies an input is from `-1` to `1` over the root
/// of the inputs' number, as untrained layers begin; a bias is around zero, and a norm's scale around one.
pub(super) fn numbers(name: &str, shape: &[usize]) -> Vec<f32> {
    let (center, spread) = match shape {
        [_, inputs @ ..] if !inputs.is_empty() => (0.0, (inputs.iter().product::<usize>() as f32).sqrt().recip()),
        _ if name.ends_with("bias") => (0.0, SPREAD),
        _ => (1.0, SPREAD),
    };
    let seed = seed_of(name);
    let mut numbers = vec![0.0; shape.iter().product()];
    numbers.par_chunks_mut(CHUNK).enumerate().for_each(|(idx, chunk)| {
        let first = (idx * CHUNK) as u32;
        for (idx, number) in chunk.iter_mut().enumerate() {
            let bits = scatter(seed ^ scatter(first.wrapping_add(idx as u32)));
            let unit = (bits >> 8) as f32 / (1 << 23) as f32 - 1.0;
            *number = in_16_bits(center + spread * unit);
        }
    });
    numbers
}

/// FNV-1a (Fowler, Noll and Vo).
fn seed_of(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Numbers in order to numbers in none: the finalizer of MurmurHash3.
fn scatter(mut bits: u32) -> u32 {
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ (bits >> 13)).wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}

/// The nearest number that bfloat16 has.
fn in_16_bits(number: f32) -> f32 {
    f32::from_bits((number.to_bits() + 0x8000) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_deviation(numbers: &[f32]) -> (f64, f64) {
        let n = numbers.len() as f64;
        let mean = numbers.iter().copied().map(f64::from).sum::<f64>() / n;
        let variance = numbers.iter().map(|number| (f64::from(*number) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[track_caller]
    fn check(name: &str, shape: &[usize], mean: f64, deviation: f64) {
        let numbers = numbers(name, shape);
        assert_eq!(numbers.len(), shape.iter().product::<usize>());
        let (ours, spread) = mean_and_deviation(&numbers);
        assert!((ours - mean).abs() < 0.05 * deviation, "{name}: mean {ours}");
        assert!((spread / deviation - 1.0).abs() < 0.02, "{name}: deviation {spread}");
    }

    #[test]
    fn numbers_are_on_the_scale_of_their_layer() {
        // Of an even distribution from -1 to 1.
        let unit = 3f64.sqrt().recip();
        check("a.weight", &[700, 400], 0.0, unit / 20.0);
        check("conv.weight", &[64, 100, 2, 2], 0.0, unit / 20.0);
        check("a.bias", &[100_000], 0.0, unit * f64::from(SPREAD));
        check("norm.weight", &[100_000], 1.0, unit * f64::from(SPREAD));
    }

    #[test]
    fn numbers_are_those_of_their_name_and_fill_16_bits() {
        let of = |name: &str| numbers(name, &[300, 300]);
        assert_eq!(of("a.weight"), of("a.weight"));
        let differ = of("a.weight").iter().zip(of("b.weight")).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert!(differ > 85_000, "{differ}");
        assert!(of("a.weight").iter().all(|number| number.to_bits().trailing_zeros() >= 16));
    }
}

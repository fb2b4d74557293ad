//! Random numbers: every recorded draw, from fresh generators and from one generator after the other.

use crate::golden;
use safetensors::{Dtype, SafeTensors};
use samplers::noise::TorchGenerator;
use std::collections::BTreeMap;

/// The reference takes double-precision logarithms and cosines from another mathematical library.
const F64_ERROR_MAX: f64 = 4.5e-16;

#[test]
fn first_draws_agree() {
    let bytes = std::fs::read(golden("noise.safetensors")).unwrap();
    let recorded = SafeTensors::deserialize(&bytes).unwrap();
    let mut n_checked = 0;
    for (name, tensor) in recorded.tensors() {
        let parts: Vec<&str> = name.split('.').collect();
        let ["one", _, seed, n] = parts[..] else { continue };
        let seed = seed.strip_prefix("seed").unwrap().parse().unwrap();
        let n = n.strip_prefix('n').unwrap().parse().unwrap();
        check_draw(&name, &mut TorchGenerator::new(seed), tensor.dtype(), n, tensor.data());
        n_checked += 1;
    }
    assert_eq!(n_checked, 7 * 16 + 3 * 16);
}

#[test]
fn known_answers_agree() {
    let bytes = std::fs::read(golden("randn_known_answers.safetensors")).unwrap();
    let recorded = SafeTensors::deserialize(&bytes).unwrap();
    for (name, tensor) in recorded.tensors() {
        let seed = name.split('.').nth(1).and_then(|part| part.strip_prefix("seed")).unwrap().parse().unwrap();
        let n = tensor.shape().iter().product();
        check_draw(&name, &mut TorchGenerator::new(seed), tensor.dtype(), n, tensor.data());
    }
    assert_eq!(recorded.len(), 30);
}

#[test]
fn draws_one_after_the_other_agree() {
    let bytes = std::fs::read(golden("noise.safetensors")).unwrap();
    let recorded = SafeTensors::deserialize(&bytes).unwrap();
    let mut sequences: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    for name in recorded.names() {
        let parts: Vec<&str> = name.split('.').collect();
        if let ["sequence", sequence, idx, ..] = parts[..] {
            sequences.entry(sequence.to_owned()).or_default().insert(idx.parse().unwrap(), name.to_owned());
        }
    }
    assert_eq!(sequences.len(), 5);
    for names in sequences.values() {
        let mut generator = TorchGenerator::new(7);
        for name in names.values() {
            let tensor = recorded.tensor(name).unwrap();
            check_draw(name, &mut generator, tensor.dtype(), tensor.shape()[0], tensor.data());
        }
    }
}

#[track_caller]
fn check_draw(name: &str, generator: &mut TorchGenerator, dtype: Dtype, n: usize, expect: &[u8]) {
    match dtype {
        Dtype::F32 => {
            let drawn: Vec<u8> = generator.randn_f32(n).iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(drawn == expect, "{name} differs in its bits");
        }
        Dtype::BF16 => {
            let drawn: Vec<u8> = generator.randn_bf16(n).iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(drawn == expect, "{name} differs in its bits");
        }
        Dtype::F16 => {
            let drawn: Vec<u8> = generator.randn_f16(n).iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(drawn == expect, "{name} differs in its bits");
        }
        Dtype::F64 => {
            let (expect, rest) = expect.as_chunks::<8>();
            assert!(rest.is_empty());
            let drawn = generator.randn_f64(n);
            assert_eq!(drawn.len(), expect.len(), "{name}");
            for (value, expect) in drawn.iter().zip(expect) {
                let difference = (value - f64::from_le_bytes(*expect)).abs();
                assert!(difference <= F64_ERROR_MAX, "{name} differs by {difference}");
            }
        }
        other => panic!("{name} has a dtype that the reference does not draw: {other:?}"),
    }
}

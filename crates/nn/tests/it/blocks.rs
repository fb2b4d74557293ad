//! Quantized blocks of every type, against what gguf-py reads from the same file, bit for bit.

use nn::checkpoint::Checkpoint;
use nn::files::FileBytes;
use nn::view::View;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

fn digest(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn every_type_of_block_reads_as_gguf_py_reads_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/formats");
    let recorded = std::fs::read_to_string(format!("{folder}/gguf.json")).unwrap();
    let recorded: serde_json::Value = serde_json::from_str(&recorded).unwrap();
    let bytes = FileBytes::open(Path::new(&format!("{folder}/blocks.gguf"))).unwrap().unwrap();
    let file = Checkpoint::open("blocks.gguf".to_owned(), bytes).unwrap();
    let types: Vec<&str> = file.shapes().map(|(name, _)| name).collect();
    assert_eq!(
        types,
        ["BF16", "F16", "F32", "Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]
    );
    for name in types {
        let shape = file.shape(name).unwrap();
        assert_eq!(shape, [3, 512]);
        let values = file.read(name, &View::whole(shape)).unwrap();
        assert_eq!(Some(digest(&values).as_str()), recorded["blocks"][name].as_str(), "{name}");
        // Some rows are read as the same rows of the whole.
        let rows = file.read(name, &View::rows_of(shape, &[2..3, 0..1]).unwrap()).unwrap();
        let same =
            rows.iter().zip(values[1024..].iter().chain(&values[..512])).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && rows.len() == 1024, "{name}");
    }
}

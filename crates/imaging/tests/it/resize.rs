//! Resampling equals Pillow's to the bit.

use super::{read_fixture, rows_of};
use domain::quantity::Size;
use imaging::{Filter, Picture, decode, fit_cover, resize, resize_with};

#[test]
fn resizing_and_covering_equal_pillow_to_the_bit() {
    let cases = rows_of("resize/cases.json");
    assert!(cases.len() >= 32, "the fixtures are missing");
    for case in cases {
        let picture =
            |field: &str| decode(&read_fixture(&format!("resize/{}", case[field].as_str().unwrap()))).unwrap();
        let side = |idx: usize| case["size"][idx].as_u64().unwrap() as u32;
        let (source, expected) = (picture("source"), picture("result"));
        let size = Size::new(side(0), side(1));
        let seen = match case["how"].as_str().unwrap() {
            "resize" => resize(&source, size),
            "bicubic" => resize_with(&source, size, Filter::Bicubic),
            _ => fit_cover(&source, size),
        };
        assert_eq!(seen.size(), size, "{case}");
        assert_eq!(n_different(&seen, &expected), 0, "{case}");
    }
}

fn n_different(a: &Picture, b: &Picture) -> usize {
    a.pixels().iter().zip(b.pixels()).filter(|(a, b)| a != b).count()
}

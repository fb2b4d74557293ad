//! Edges equal OpenCV's, pixel by pixel.

use imaging::canny::{Aperture, Norm};
use imaging::{Canny, Picture, canny, decode};
use serde_json::Value;
use std::path::Path;

#[test]
fn edges_equal_opencvs_on_every_recorded_picture() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../parity/goldens/canny");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let cases: Vec<Value> = serde_json::from_slice(&read("cases.json")).unwrap();
    assert!(cases.len() > 100, "the fixtures are missing");
    let mut n_edges = 0;
    for case in cases {
        let picture = |field: &str| decode(&read(case[field].as_str().unwrap())).unwrap();
        let (source, expected) = (picture("source"), picture("result"));
        let seen = canny(&source, settings(&case));
        assert_eq!(seen.size(), expected.size(), "{case}");
        assert_eq!(n_different(&seen, &expected), 0, "{case}");
        n_edges += seen.pixels().iter().map(|level| usize::from(*level / 255)).sum::<usize>();
    }
    assert!(n_edges > 100_000, "the fixtures have no edges");
}

fn settings(case: &Value) -> Canny {
    Canny {
        low: case["low"].as_f64().unwrap(),
        high: case["high"].as_f64().unwrap(),
        aperture: match case["aperture"].as_u64().unwrap() {
            3 => Aperture::Three,
            5 => Aperture::Five,
            7 => Aperture::Seven,
            other => panic!("an aperture of {other}"),
        },
        norm: match case["norm"].as_str().unwrap() {
            "l1" => Norm::L1,
            "l2" => Norm::L2,
            other => panic!("a norm {other}"),
        },
    }
}

fn n_different(a: &Picture, b: &Picture) -> usize {
    a.pixels().iter().zip(b.pixels()).filter(|(a, b)| a != b).count()
}

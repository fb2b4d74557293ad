//! Kontext's reference: the size in which it stands beside the picture.

use domain::quantity::Size;
use imaging::Picture;

/// The largest reference that is taken in its own size, pixels: about what the model was trained with.
const OWN_PIXELS_MAX: u64 = 1024 * 1024;
/// Width and height of what the model was trained with, from upright to wide (diffusers 0.42.1,
/// `PREFERRED_KONTEXT_RESOLUTIONS`).
const TRAINED_SIZES: [(u32, u32); 17] = [
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
    (1024, 1024),
    (1104, 944),
    (1184, 880),
    (1248, 832),
    (1328, 800),
    (1392, 752),
    (1456, 720),
    (1504, 688),
    (1568, 672),
];

/// The reference as the model sees it.
///
/// A large one is stretched to the trained size that is nearest in shape, as the reference implementation does. A small
/// one keeps its size, rounded down to whole tokens, as the reference implementation does when its resizing is switched
/// off: enlarged it would cost thousands of tokens that say nothing more.
pub(super) fn reference_picture(source: &Picture, multiple: u32) -> Picture {
    imaging::resize(source, reference_size(source.size(), multiple))
}

fn reference_size(source: Size, multiple: u32) -> Size {
    let whole = |n: u32| (n / multiple).max(1) * multiple;
    let own = Size::new(whole(source.width), whole(source.height));
    if source.pixels() <= OWN_PIXELS_MAX {
        return own;
    }
    let shape = |width: u32, height: u32| f64::from(width) / f64::from(height);
    let off = |(width, height): (u32, u32)| (shape(own.width, own.height) - shape(width, height)).abs();
    // Of equally near ones the first: it is the narrower.
    let nearest = TRAINED_SIZES.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b)));
    let (width, height) = nearest.expect("there are trained sizes, this is a bug");
    Size::new(whole(width), whole(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_picture_gets_the_references_size() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/kontext_sizes.json");
        let recorded: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let size = |value: &Value| {
            let side = |idx: usize| value[idx].as_u64().unwrap() as u32;
            Size::new(side(0), side(1))
        };
        let (mut n_own, mut n_trained) = (0, 0);
        for case in &recorded {
            let picture = size(&case["picture"]);
            let is_own = picture.pixels() <= OWN_PIXELS_MAX;
            let (counted, expect) =
                if is_own { (&mut n_own, &case["own"]) } else { (&mut n_trained, &case["trained"]) };
            *counted += 1;
            assert_eq!(reference_size(picture, 16), size(expect), "{picture}");
        }
        assert!(n_own >= 5 && n_trained >= 17, "{n_own}, {n_trained}");
    }

    #[test]
    fn a_thread_of_a_picture_has_a_token_at_least() {
        assert_eq!(reference_size(Size::new(5, 100), 16), Size::new(16, 96));
        assert_eq!(reference_size(Size::new(1, 2_000_000), 16), Size::new(672, 1568));
    }
}

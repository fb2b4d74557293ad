//! The sizes that Ideogram 3.0 paints, and which of them comes nearest to one that a client wants.

use domain::quantity::Size;

/// Width and height as in the API's own list for `resolution`.
/// Source: <https://developer.ideogram.ai/api-reference/api-reference/remix-v3>
const RESOLUTIONS: [(u32, u32); 69] = [
    (512, 1536),
    (576, 1408),
    (576, 1472),
    (576, 1536),
    (640, 1344),
    (640, 1408),
    (640, 1472),
    (640, 1536),
    (704, 1152),
    (704, 1216),
    (704, 1280),
    (704, 1344),
    (704, 1408),
    (704, 1472),
    (736, 1312),
    (768, 1088),
    (768, 1216),
    (768, 1280),
    (768, 1344),
    (800, 1280),
    (832, 960),
    (832, 1024),
    (832, 1088),
    (832, 1152),
    (832, 1216),
    (832, 1248),
    (864, 1152),
    (896, 960),
    (896, 1024),
    (896, 1088),
    (896, 1120),
    (896, 1152),
    (960, 832),
    (960, 896),
    (960, 1024),
    (960, 1088),
    (1024, 832),
    (1024, 896),
    (1024, 960),
    (1024, 1024),
    (1088, 768),
    (1088, 832),
    (1088, 896),
    (1088, 960),
    (1120, 896),
    (1152, 704),
    (1152, 832),
    (1152, 864),
    (1152, 896),
    (1216, 704),
    (1216, 768),
    (1216, 832),
    (1248, 832),
    (1280, 704),
    (1280, 768),
    (1280, 800),
    (1312, 736),
    (1344, 640),
    (1344, 704),
    (1344, 768),
    (1408, 576),
    (1408, 640),
    (1408, 704),
    (1472, 576),
    (1472, 640),
    (1472, 704),
    (1536, 512),
    (1536, 576),
    (1536, 640),
];

/// The size itself if it is listed; otherwise the one whose shape is nearest, and of those the one whose area is: what is
/// cut off then is least.
pub(crate) fn nearest(size: Size) -> Size {
    let distance = |listed: Size| {
        let shape = (ratio(listed.width, listed.height) / ratio(size.width, size.height)).ln().abs();
        let area = (listed.pixels() as f64 / size.pixels().max(1) as f64).ln().abs();
        (shape, area)
    };
    let sizes = RESOLUTIONS.into_iter().map(|(width, height)| Size::new(width, height));
    let nearest = sizes.min_by(|a, b| {
        let ((shape_a, area_a), (shape_b, area_b)) = (distance(*a), distance(*b));
        shape_a.total_cmp(&shape_b).then(area_a.total_cmp(&area_b))
    });
    nearest.expect("the list is not empty, this is a bug")
}

fn ratio(width: u32, height: u32) -> f64 {
    f64::from(width.max(1)) / f64::from(height.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(size: (u32, u32), expect: (u32, u32)) {
        assert_eq!(nearest(Size::new(size.0, size.1)), Size::new(expect.0, expect.1));
    }

    #[test]
    fn what_is_listed_is_itself() {
        for size in RESOLUTIONS {
            check(size, size);
        }
    }

    #[test]
    fn the_five_sizes_of_the_contract() {
        check((1024, 1024), (1024, 1024));
        check((720, 1280), (736, 1312));
        check((1280, 720), (1312, 736));
        check((960, 1280), (864, 1152));
        check((1280, 960), (1152, 864));
    }

    #[test]
    fn any_size_has_a_neighbor() {
        check((1, 1), (1024, 1024));
        check((4096, 1), (1536, 512));
        check((1, 4096), (512, 1536));
        check((64, 48), (1152, 864));
    }
}

//! A plan in Ideogram's terms: what is sent, what is not, and what comes of it in the end.

use super::config::RenderingSpeed;
use super::form::{Form, FormFile, FormWriter};
use super::resolution::nearest;
use super::upload::{IMAGE_BYTES_MAX, encode};
use domain::catalogue::Mode;
use domain::quantity::{Size, Strength};
use domain::request::OutputFormat;
use engine::{EngineError, Fit, Plan};
use imaging::Picture;

/// Pictures of one call.
const BATCH_MAX: u32 = 8;
/// What is brought to the size asked for, pixels; above it memory, not patience, would run out.
const PIXELS_MAX: u64 = 4096 * 4096;
/// Seeds have 31 bits there.
const SEED_MAX: u64 = 0x7fff_ffff;

/// A plan that can be painted.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) source: &'a Picture,
    /// What the caller gets.
    pub(crate) size: Size,
    pub(crate) strength: f64,
    /// Parameters of the plan that mean nothing there, by their wire names.
    pub(crate) ignored: Vec<String>,
}

impl<'a> Job<'a> {
    /// # Errors
    /// [`EngineError::Refused`] for what no call could paint.
    pub(crate) fn of(plan: &'a Plan) -> Result<Self, EngineError> {
        let refused = |text: String| Err(EngineError::Refused(text));
        if plan.mode != Mode::Remix {
            return refused("Ideogram remixes the reference; it knows no other mode".to_owned());
        }
        let Some(source) = &plan.source else {
            return refused("image: Ideogram remixes a picture and cannot do without one".to_owned());
        };
        let size = plan.size.unwrap_or(source.size());
        if !(1..=PIXELS_MAX).contains(&size.pixels()) {
            return refused(format!("width x height in pixels: got {}; allowed: 1 to {PIXELS_MAX}", size.pixels()));
        }
        if !(1..=BATCH_MAX).contains(&plan.batch) {
            return refused(format!("batch: got {}; allowed: 1 to {BATCH_MAX}", plan.batch));
        }
        let strength = plan.strength.unwrap_or(Strength::DEFAULT.get());
        let strength = Strength::new(strength).map_err(|invalid| EngineError::Refused(invalid.to_string()))?.get();
        Ok(Self { plan, source, size, strength, ignored: ignored(plan) })
    }

    /// The request. The reference is brought to the shape that will be painted before it leaves: Ideogram would cut it
    /// to that shape in a way of its own.
    pub(crate) fn form(&self, rendering_speed: RenderingSpeed) -> Result<Form, EngineError> {
        let resolution = nearest(self.size);
        let reference = placed(self.source, resolution, self.plan.fit);
        let failed = |error: imaging::ImageError| EngineError::Failed(error.to_string());
        let encoded = encode(&reference, IMAGE_BYTES_MAX).map_err(failed)?.ok_or_else(|| {
            EngineError::Refused(format!("image: in no format has it at most {IMAGE_BYTES_MAX} bytes"))
        })?;
        let mut form = FormWriter::new()?;
        form.file(&FormFile {
            name: "image",
            file_name: file_name(encoded.format),
            media_type: encoded.format.media_type(),
            bytes: &encoded.bytes,
        });
        form.text("prompt", &self.plan.prompt);
        form.text("image_weight", &image_weight(self.strength).to_string());
        form.text("resolution", &resolution.to_string());
        form.text("num_images", &self.plan.batch.to_string());
        form.text("seed", &seed(self.plan.seed).to_string());
        form.text("rendering_speed", rendering_speed.on_the_wire());
        // The prompt is painted as it is written: rewritten by chance, the same request would not be the same.
        form.text("magic_prompt", "OFF");
        if let Some(negative_prompt) = self.plan.negative_prompt.as_deref().filter(|text| !text.is_empty()) {
            form.text("negative_prompt", negative_prompt);
        }
        Ok(form.finish())
    }

    /// What was painted, in the size that the caller wants.
    pub(crate) fn finish(&self, picture: &Picture) -> Picture {
        placed(picture, self.size, Fit::Cover)
    }

    /// The reference itself, for a caller who does not want to leave it.
    pub(crate) fn untouched(&self) -> Picture {
        placed(self.source, self.size, self.plan.fit)
    }
}

/// Strength is the distance from the reference; the weight is its share, 1 to 100.
fn image_weight(strength: f64) -> u32 {
    (((1.0 - strength) * 100.0).round() as u32).clamp(1, 100)
}

/// The lowest 31 bits.
fn seed(seed: u64) -> u64 {
    seed & SEED_MAX
}

fn placed(picture: &Picture, size: Size, fit: Fit) -> Picture {
    match fit {
        _ if picture.size() == size => picture.clone(),
        Fit::Cover => imaging::fit_cover(picture, size),
        Fit::Stretch => imaging::resize(picture, size),
    }
}

const fn file_name(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Png => "reference.png",
        OutputFormat::Jpeg => "reference.jpg",
        OutputFormat::Webp => "reference.webp",
    }
}

fn ignored(plan: &Plan) -> Vec<String> {
    let given = [
        ("guidance_scale", plan.guidance_scale.is_some()),
        ("num_inference_steps", plan.steps.is_some()),
        ("true_cfg_scale", plan.true_cfg_scale.is_some()),
        ("prompt_2", plan.prompt_2.is_some()),
        ("negative_prompt_2", plan.negative_prompt_2.is_some()),
        ("max_sequence_length", plan.max_sequence_length.is_some()),
        ("scheduler", plan.scheduler.is_some()),
        ("control_image", plan.control_image.is_some()),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_what_strength_leaves_of_the_reference() {
        let strengths = [(0.7, 30), (0.5, 50), (0.001, 100), (0.995, 1), (0.994, 1), (0.985, 2), (1.0, 1), (0.35, 65)];
        for (strength, weight) in strengths {
            assert_eq!(image_weight(strength), weight, "{strength}");
        }
    }

    #[test]
    fn seeds_keep_their_lowest_bits() {
        for (given, sent) in [(0, 0), (42, 42), (0x7fff_ffff, 0x7fff_ffff), (0x8000_0000, 0), (u64::MAX, 0x7fff_ffff)] {
            assert_eq!(seed(given), sent);
        }
    }
}

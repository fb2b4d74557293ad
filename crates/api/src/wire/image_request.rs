//! The body of `POST /getImagetoImage`, in all the spellings that clients use.

use crate::body::FromFields;
use crate::fields::{Fields, Whole};
use domain::fault::{Fault, Invalid};
use domain::request::Draft;
use std::fmt::Display;
use utoipa::ToSchema;

/// What to paint. Unknown fields are no error; they are listed in the answer's `input.ignored`.
#[derive(ToSchema)]
pub(crate) struct ImageRequest {
    /// Names the model; see `GET /v1/apps`.
    #[schema(value_type = String, example = "ap-fGhKl3mfkdlpqrshuwwabc")]
    pub(crate) app_id: Option<String>,
    /// The reference picture: an `http`, `https` or `data:` URL; required unless `file_url` is there. Larger than
    /// 1536x1536: scaled down to fit.
    pub(crate) image: Option<String>,
    /// Another spelling of `image`.
    pub(crate) file_url: Option<String>,
    /// A ready-made control picture (edges, depth), as `image`; only for the apps that would make one of the reference.
    pub(crate) control_image: Option<String>,
    /// What to paint. Optional where the app says so.
    #[schema(max_length = 4000)]
    pub(crate) prompt: Option<String>,
    /// What to avoid.
    #[schema(max_length = 4000)]
    pub(crate) negative_prompt: Option<String>,
    /// Adherence to the prompt.
    #[schema(minimum = 1, maximum = 30)]
    pub(crate) guidance_scale: Option<f64>,
    /// Pictures per request.
    #[schema(minimum = 1, maximum = 8, default = 1)]
    pub(crate) batch: Option<i64>,
    /// How far to leave the reference: 1 disregards it, 0 returns it untouched.
    #[schema(minimum = 0, maximum = 1, default = 0.7)]
    pub(crate) strength: Option<f64>,
    /// Only for apps with a list of sizes.
    #[schema(minimum = 256, maximum = 1600)]
    pub(crate) width: Option<i64>,
    #[schema(minimum = 256, maximum = 1600)]
    pub(crate) height: Option<i64>,
    /// True: answer at once with a `task_id`.
    #[schema(default = false)]
    pub(crate) celery: Option<bool>,
    /// `a10g`, `a100` or `h100`; only for the deployed apps.
    #[schema(pattern = "^(a10g|a100|h100)$")]
    pub(crate) inference_type: Option<String>,
    /// The same request with the same seed gives the same bytes.
    pub(crate) seed: Option<u64>,
    #[schema(minimum = 1, maximum = 50)]
    pub(crate) num_inference_steps: Option<i64>,
    /// `png`, `jpeg` or `webp`.
    #[schema(default = "png", pattern = "^(png|jpeg|webp)$")]
    pub(crate) output_format: Option<String>,
    /// The caller's own name for the task, echoed back. Also `refID` and `reference_id`.
    #[schema(max_length = 256)]
    pub(crate) ref_id: Option<String>,
    #[schema(ignore)]
    pub(crate) unknown: Vec<String>,
}

impl FromFields for ImageRequest {
    const NAMES: &'static [&'static str] = &[
        "app_id",
        "image",
        "file_url",
        "control_image",
        "prompt",
        "negative_prompt",
        "guidance_scale",
        "batch",
        "strength",
        "width",
        "height",
        "celery",
        "inference_type",
        "seed",
        "num_inference_steps",
        "output_format",
        "ref_id",
        "refID",
        "reference_id",
    ];

    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        Ok(Self {
            app_id: fields.text("app_id")?,
            image: fields.text("image")?,
            file_url: fields.text("file_url")?,
            control_image: fields.text("control_image")?,
            prompt: fields.text("prompt")?,
            negative_prompt: fields.text("negative_prompt")?,
            guidance_scale: fields.number("guidance_scale")?,
            batch: fields.integer("batch")?,
            strength: fields.number("strength")?,
            width: fields.integer("width")?,
            height: fields.integer("height")?,
            celery: fields.flag("celery")?,
            inference_type: fields.text("inference_type")?,
            num_inference_steps: fields.integer("num_inference_steps")?,
            output_format: fields.text("output_format")?,
            ref_id: reference(&mut fields)?,
            seed: seed(&mut fields)?,
            unknown: fields.unknown,
        })
    }
}

impl ImageRequest {
    /// What a client wrote, and the fields that nobody knows.
    pub(crate) fn into_draft(self) -> Result<(Draft, Vec<String>), Invalid> {
        let image = only("file_url", [self.image, self.file_url])?;
        let draft = Draft {
            app_id: self.app_id,
            image,
            control_image: self.control_image,
            prompt: self.prompt,
            guidance_scale: self.guidance_scale,
            batch: self.batch,
            strength: self.strength,
            width: self.width,
            height: self.height,
            negative_prompt: self.negative_prompt,
            inference_type: self.inference_type,
            seed: self.seed,
            num_inference_steps: self.num_inference_steps,
            output_format: self.output_format,
            reference_id: self.ref_id,
        };
        Ok((draft, self.unknown))
    }
}

/// The spellings of the caller's own name for a task.
pub(crate) const REFERENCE_NAMES: [&str; 3] = ["ref_id", "refID", "reference_id"];

/// The caller's own name for a task.
pub(crate) fn reference(fields: &mut Fields) -> Result<Option<String>, Fault> {
    let [first, second, third] = REFERENCE_NAMES;
    Ok(only(first, [fields.text(first)?, fields.text(second)?, fields.text(third)?])?)
}

/// One value in several spellings of its field, which must not contradict each other.
pub(crate) fn only<const N: usize>(
    field: &'static str,
    spellings: [Option<String>; N],
) -> Result<Option<String>, Invalid> {
    let mut given = spellings.into_iter().flatten();
    let first = given.next();
    if given.all(|other| Some(&other) == first.as_ref()) {
        return Ok(first);
    }
    Err(Invalid::new(field, "another value than in its other spelling", "one of them, or both the same"))
}

fn seed(fields: &mut Fields) -> Result<Option<u64>, Fault> {
    match fields.whole("seed")? {
        None => Ok(None),
        Some(Whole::Unsigned(seed)) => Ok(Some(seed)),
        Some(Whole::Negative(seed)) => Err(no_seed(seed)),
        Some(Whole::Beyond(seed)) => Err(no_seed(seed)),
    }
}

fn no_seed(got: impl Display) -> Fault {
    Invalid::new("seed", got, format!("a whole number from 0 to {}", u64::MAX)).into()
}

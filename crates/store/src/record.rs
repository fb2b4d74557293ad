//! Domain values as JSON in rows. Mirrors by hand, since `domain` knows no serde and rows outlive its types.
//!
//! An error names the field and nothing of its value: a request holds prompts and URLs.

use domain::fault::{ErrorCode, Fault};
use domain::id::{AppId, BlobKey, ModelId};
use domain::quantity::{Batch, GuidanceScale, Size, Steps, Strength};
use domain::request::{GenerationRequest, InferenceType, OutputFormat};
use domain::task::{PaintedImage, Painting};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The field that cannot be read, and sometimes why.
pub(crate) type Unreadable = String;

pub(crate) fn request_to_json(request: &GenerationRequest) -> String {
    to_json(&RequestRecord::from(request))
}

pub(crate) fn request_from_json(text: &str) -> Result<GenerationRequest, Unreadable> {
    from_json::<RequestRecord>("request", text)?.try_into()
}

pub(crate) fn painting_to_json(painting: &Painting) -> String {
    to_json(&PaintingRecord::from(painting))
}

pub(crate) fn painting_from_json(text: &str) -> Result<Painting, Unreadable> {
    from_json::<PaintingRecord>("painting", text)?.try_into()
}

pub(crate) fn fault_to_json(fault: &Fault) -> String {
    to_json(&FaultRecord {
        code: fault.code.as_str().to_owned(),
        detail: fault.detail.clone(),
        retry_after_s: fault.retry_after_s,
    })
}

pub(crate) fn fault_from_json(text: &str) -> Result<Fault, Unreadable> {
    let record = from_json::<FaultRecord>("fault", text)?;
    let code = ErrorCode::parse(&record.code).ok_or("fault.code")?;
    Ok(Fault { code, detail: record.detail, retry_after_s: record.retry_after_s })
}

#[derive(Serialize, Deserialize)]
struct RequestRecord {
    app: String,
    image: String,
    #[serde(default)]
    control_image: Option<String>,
    prompt: String,
    negative_prompt: String,
    #[serde(with = "exact")]
    guidance_scale: f64,
    #[serde(with = "exact")]
    strength: f64,
    batch: u32,
    steps: u32,
    size: Option<(u32, u32)>,
    seed: u64,
    inference_type: Option<String>,
    output_format: String,
    reference_id: Option<String>,
    ignored: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct PaintingRecord {
    images: Vec<ImageRecord>,
    model: String,
    #[serde(with = "exact")]
    startup_s: f64,
    #[serde(with = "exact")]
    runtime_s: f64,
    ignored: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    image: String,
    thumbnail: String,
    /// Rows of earlier versions are silent.
    #[serde(default)]
    withheld: bool,
}

#[derive(Serialize, Deserialize)]
struct FaultRecord {
    code: String,
    detail: String,
    retry_after_s: Option<u32>,
}

impl From<&GenerationRequest> for RequestRecord {
    fn from(request: &GenerationRequest) -> Self {
        Self {
            app: request.app.as_str().to_owned(),
            image: request.image.clone(),
            control_image: request.control_image.clone(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            guidance_scale: request.guidance_scale.get(),
            strength: request.strength.get(),
            batch: request.batch.get(),
            steps: request.steps.get(),
            size: request.size.map(|size| (size.width, size.height)),
            seed: request.seed,
            inference_type: request.inference_type.map(|class| class.as_str().to_owned()),
            output_format: request.output_format.as_str().to_owned(),
            reference_id: request.reference_id.clone(),
            ignored: request.ignored.clone(),
        }
    }
}

impl TryFrom<RequestRecord> for GenerationRequest {
    type Error = Unreadable;

    fn try_from(record: RequestRecord) -> Result<Self, Unreadable> {
        Ok(Self {
            app: AppId::parse(&record.app).ok_or("request.app")?,
            image: record.image,
            control_image: record.control_image,
            prompt: record.prompt,
            negative_prompt: record.negative_prompt,
            guidance_scale: GuidanceScale::new(record.guidance_scale).map_err(|_| "request.guidance_scale")?,
            strength: Strength::new(record.strength).map_err(|_| "request.strength")?,
            batch: Batch::new(record.batch.into()).map_err(|_| "request.batch")?,
            steps: Steps::new(record.steps.into()).map_err(|_| "request.steps")?,
            size: record.size.map(|(width, height)| Size::new(width, height)),
            seed: record.seed,
            inference_type: inference_type(record.inference_type.as_deref())?,
            output_format: OutputFormat::parse(&record.output_format).map_err(|_| "request.output_format")?,
            reference_id: record.reference_id,
            ignored: record.ignored,
        })
    }
}

fn inference_type(text: Option<&str>) -> Result<Option<InferenceType>, Unreadable> {
    text.map(|text| InferenceType::parse(text).map_err(|_| "request.inference_type".to_owned())).transpose()
}

impl From<&Painting> for PaintingRecord {
    fn from(painting: &Painting) -> Self {
        let image = |painted: &PaintedImage| ImageRecord {
            image: painted.image.as_str().to_owned(),
            thumbnail: painted.thumbnail.as_str().to_owned(),
            withheld: painted.withheld,
        };
        Self {
            images: painting.images.iter().map(image).collect(),
            model: painting.model.as_str().to_owned(),
            startup_s: painting.startup_s,
            runtime_s: painting.runtime_s,
            ignored: painting.ignored.clone(),
        }
    }
}

impl TryFrom<PaintingRecord> for Painting {
    type Error = Unreadable;

    fn try_from(record: PaintingRecord) -> Result<Self, Unreadable> {
        let image = |record: &ImageRecord| {
            Ok::<_, Unreadable>(PaintedImage {
                image: BlobKey::parse(&record.image).ok_or("painting.images.image")?,
                thumbnail: BlobKey::parse(&record.thumbnail).ok_or("painting.images.thumbnail")?,
                withheld: record.withheld,
            })
        };
        Ok(Self {
            images: record.images.iter().map(image).collect::<Result<_, _>>()?,
            model: ModelId::parse(&record.model).ok_or("painting.model")?,
            startup_s: record.startup_s,
            runtime_s: record.runtime_s,
            ignored: record.ignored,
        })
    }
}

fn to_json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("a record of strings and numbers has a JSON form, this is a bug")
}

fn from_json<T: DeserializeOwned>(field: &str, text: &str) -> Result<T, Unreadable> {
    // The parser's own message may quote the text, so only its kind and place are told.
    serde_json::from_str(text)
        .map_err(|error| format!("{field} ({:?} error at byte {})", error.classify(), error.column()))
}

/// Numbers as text: JSON parsers may miss the last bit, and the same request must paint the same picture again.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("not a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> GenerationRequest {
        GenerationRequest {
            app: AppId::parse("ap-1").unwrap(),
            image: "https://example.com/a.png".to_owned(),
            control_image: Some("https://example.com/edges.png".to_owned()),
            prompt: "a \"quoted\" cat\n\u{1f408}".to_owned(),
            negative_prompt: String::new(),
            guidance_scale: GuidanceScale::new(3.5).unwrap(),
            strength: Strength::DEFAULT,
            batch: Batch::new(8).unwrap(),
            steps: Steps::new(50).unwrap(),
            size: Some(Size::new(1600, 676)),
            seed: u64::MAX,
            inference_type: Some(InferenceType::H100),
            output_format: OutputFormat::Webp,
            reference_id: Some("mine".to_owned()),
            ignored: vec!["width".to_owned()],
        }
    }

    #[test]
    fn a_fault_survives_its_row() {
        for code in ErrorCode::ALL {
            let fault = Fault::new(code, "why").retry_after_s(3);
            assert_eq!(fault_from_json(&fault_to_json(&fault)), Ok(fault));
        }
    }

    #[test]
    fn a_painting_survives_its_row() {
        let key = |text| BlobKey::parse(text).unwrap();
        let painting = Painting {
            images: vec![PaintedImage { image: key("r-1.png"), thumbnail: key("t-1.jpeg"), withheld: true }],
            model: ModelId::parse("flux-dev").unwrap(),
            startup_s: 0.1 + 0.2,
            runtime_s: 1e-300,
            ignored: vec!["negative_prompt".to_owned()],
        };
        assert_eq!(painting_from_json(&painting_to_json(&painting)), Ok(painting));
    }

    #[test]
    fn an_unreadable_field_is_named_and_its_value_is_not() {
        let good = request_to_json(&request());
        let bad = good.replace("\"webp\"", "\"secret words\"");
        assert_eq!(request_from_json(&bad), Err("request.output_format".to_owned()));
        let wrong_type = good.replace("\"batch\":8", "\"batch\":\"secret words\"");
        let error = request_from_json(&wrong_type).unwrap_err();
        assert!(error.starts_with("request (Data error"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert!(request_from_json(&good[..good.len() / 2]).unwrap_err().starts_with("request (Eof"));
    }

    proptest! {
        #[test]
        fn a_request_survives_its_row(
            prompt in any::<String>(),
            guidance_scale in 1.0f64..=30.0,
            strength in 0.0f64..=1.0,
            seed in any::<u64>(),
            size in proptest::option::of((1u32..5000, 1u32..5000)),
            reference_id in proptest::option::of(any::<String>()),
            inference_type in proptest::option::of(proptest::sample::select(&InferenceType::ALL[..])),
        ) {
            let request = GenerationRequest {
                prompt,
                guidance_scale: GuidanceScale::new(guidance_scale).unwrap(),
                strength: Strength::new(strength).unwrap(),
                seed,
                size: size.map(|(width, height)| Size::new(width, height)),
                reference_id,
                inference_type,
                ..request()
            };
            prop_assert_eq!(request_from_json(&request_to_json(&request)), Ok(request));
        }
    }
}

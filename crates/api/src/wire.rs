//! What travels: the contract's one response shape, and the requests. Domain values are converted by hand.

use crate::links::Links;
use domain::fault::{ErrorCode, Fault};
use domain::request::{GenerationRequest, InferenceType};
use domain::task::{Painting, Task, TaskState};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema};

pub(crate) mod app;
pub(crate) mod image_request;
pub(crate) mod task;

/// The shape of every answer about a task and of every error. Fields with nothing to say are null or `{}`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Envelope {
    #[serde(serialize_with = "or_empty")]
    #[schema(schema_with = maybe_empty::<TimeRequired>, required = true)]
    pub(crate) time_required: Option<TimeRequired>,
    /// A short class: `Validation Error`, `Image URL Error`, …
    #[schema(required = true)]
    pub(crate) error: Option<String>,
    /// The detail: which field, what it got, what is allowed.
    #[schema(required = true)]
    pub(crate) error_data: Option<String>,
    #[serde(serialize_with = "or_empty")]
    #[schema(schema_with = maybe_empty::<Input>, required = true)]
    pub(crate) input: Option<Input>,
    #[serde(serialize_with = "or_empty")]
    #[schema(schema_with = maybe_empty::<Output>, required = true)]
    pub(crate) output: Option<Output>,
    #[schema(required = true)]
    pub(crate) app_id: Option<String>,
    #[schema(required = true)]
    pub(crate) task_id: Option<String>,
    pub(crate) status: Status,
    /// The caller's own name for the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ref_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    /// Queued or running.
    Pending,
    Success,
    #[default]
    Failed,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct TimeRequired {
    /// From acceptance to the start of the work.
    startup_time: f64,
    /// The work itself.
    runtime: f64,
}

/// The accepted parameters, defaults filled in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Input {
    app_id: String,
    image: String,
    /// Only for the apps that take one.
    #[serde(skip_serializing_if = "Option::is_none")]
    control_image: Option<String>,
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    strength: f64,
    batch: u32,
    num_inference_steps: u32,
    /// Null: the reference's own.
    width: Option<u32>,
    height: Option<u32>,
    seed: u64,
    output_format: &'static str,
    /// The class that the task runs on; only for the apps that it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    inference_type: Option<&'static str>,
    /// Only in the answer to the request itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) celery: Option<bool>,
    /// Parameters that were given and had no effect, unknown ones included.
    ignored: Vec<String>,
}

/// One entry per picture in each list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Output {
    result: Vec<String>,
    low_res_urls: Vec<String>,
    /// True for a picture that the provider who painted it withheld; what is served is black. No checker runs here.
    #[serde(rename = "Has_NSFW_Content")]
    has_nsfw_content: Vec<bool>,
    /// The weights that painted.
    model: String,
}

impl Envelope {
    pub(crate) fn refused(class: &str, detail: String) -> Self {
        Self { error: Some(class.to_owned()), error_data: Some(detail), ..Self::default() }
    }

    pub(crate) fn of_task(task: &Task, links: &Links) -> Self {
        let fault = fault_of(&task.state);
        Self {
            time_required: time_required(task),
            error: fault.as_ref().map(|fault| fault.code.class().to_owned()),
            error_data: fault.map(|fault| fault.detail),
            input: Some(Input::of_task(task)),
            output: painting_of(task).map(|painting| Output::of(painting, links)),
            app_id: Some(task.request.app.to_string()),
            task_id: Some(task.id.to_string()),
            status: status_of(&task.state),
            ref_id: task.request.reference_id.clone(),
        }
    }
}

impl Input {
    fn of_task(task: &Task) -> Self {
        let request: &GenerationRequest = &task.request;
        let mut ignored = request.ignored.clone();
        let unused = painting_of(task).map(|painting| painting.ignored.as_slice()).unwrap_or_default();
        ignored.extend(unused.iter().filter(|name| !request.ignored.contains(name)).cloned());
        Self {
            app_id: request.app.to_string(),
            image: request.image.clone(),
            control_image: request.control_image.clone(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            guidance_scale: request.guidance_scale.get(),
            strength: request.strength.get(),
            batch: request.batch.get(),
            num_inference_steps: request.steps.get(),
            width: request.size.map(|size| size.width),
            height: request.size.map(|size| size.height),
            seed: request.seed,
            output_format: request.output_format.as_str(),
            inference_type: request.inference_type.map(InferenceType::as_str),
            celery: None,
            ignored,
        }
    }
}

impl Output {
    fn of(painting: &Painting, links: &Links) -> Self {
        Self {
            result: painting.images.iter().map(|painted| links.result(&painted.image)).collect(),
            low_res_urls: painting.images.iter().map(|painted| links.result(&painted.thumbnail)).collect(),
            has_nsfw_content: painting.images.iter().map(|painted| painted.withheld).collect(),
            model: painting.model.to_string(),
        }
    }
}

fn painting_of(task: &Task) -> Option<&Painting> {
    match &task.state {
        TaskState::Succeeded(painting) => Some(painting),
        _ => None,
    }
}

fn fault_of(state: &TaskState) -> Option<Fault> {
    match state {
        TaskState::Failed(fault) => Some(fault.clone()),
        TaskState::Cancelled => Some(Fault::new(ErrorCode::Cancelled, "the task was cancelled")),
        TaskState::Queued | TaskState::Running | TaskState::Succeeded(_) => None,
    }
}

fn status_of(state: &TaskState) -> Status {
    match state {
        TaskState::Queued | TaskState::Running => Status::Pending,
        TaskState::Succeeded(_) => Status::Success,
        TaskState::Failed(_) | TaskState::Cancelled => Status::Failed,
    }
}

/// Known once the task is over, if it ever began.
fn time_required(task: &Task) -> Option<TimeRequired> {
    if let Some(painting) = painting_of(task) {
        return Some(TimeRequired {
            startup_time: whole_ms(painting.startup_s),
            runtime: whole_ms(painting.runtime_s),
        });
    }
    let (started, finished) = (task.started_ms?, task.finished_ms?);
    let seconds = |from: i64, to: i64| (to - from).max(0) as f64 / 1000.0;
    Some(TimeRequired { startup_time: seconds(task.created_ms, started), runtime: seconds(started, finished) })
}

/// Seconds without the digits that no clock here can vouch for.
fn whole_ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The schema of an object that has all its fields or none.
fn maybe_empty<T: ToSchema>() -> Schema {
    let empty = ObjectBuilder::new().max_properties(Some(0));
    OneOfBuilder::new().item(Ref::from_schema_name(T::name())).item(empty).into()
}

/// The contract wants `{}` where an object has nothing to say.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn or_empty<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.collect_map(std::iter::empty::<((), ())>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_all_eight_fields() {
        let text = serde_json::to_string(&Envelope::refused("Not Found", "nothing here".to_owned())).unwrap();
        assert_eq!(
            text,
            r#"{"time_required":{},"error":"Not Found","error_data":"nothing here","input":{},"output":{},"app_id":null,"task_id":null,"status":"FAILED"}"#
        );
    }
}

//! An app as clients see it.

use app::availability::Availability;
use domain::catalogue::{App, PromptRule, SizeRule};
use domain::gpu::GpuOffer;
use domain::quantity::Size;
use domain::request::InferenceType;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppList {
    pub(crate) apps: Vec<AppView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppView {
    app_id: String,
    slug: String,
    name: String,
    /// Width x height, the default first; null: the result takes the reference's dimensions.
    sizes: Option<Vec<String>>,
    prompt_required: bool,
    /// Whether `inference_type` applies.
    deployed: bool,
    /// The classes of GPU that are offered here; null where `inference_type` does not apply.
    inference_types: Option<Vec<&'static str>>,
    defaults: DefaultsView,
    /// The installed weights that serve it; null: none are.
    model: Option<String>,
    /// What to do where none are.
    how_to_install: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DefaultsView {
    guidance_scale: f64,
    num_inference_steps: u32,
    strength: f64,
}

impl AppView {
    pub(crate) fn of(app: &App, availability: &dyn Availability, gpus: GpuOffer) -> Self {
        let model = availability.model_for(app);
        Self {
            app_id: app.id.to_string(),
            slug: app.slug.clone(),
            name: app.name.clone(),
            sizes: match &app.size_rule {
                SizeRule::TakesInput => None,
                SizeRule::OneOf(sizes) => Some(sizes.iter().map(Size::to_string).collect()),
            },
            prompt_required: app.prompt == PromptRule::Required,
            deployed: app.deployed,
            inference_types: app.deployed.then(|| gpus.classes().map(InferenceType::as_str).collect()),
            defaults: DefaultsView {
                guidance_scale: app.defaults.guidance_scale.get(),
                num_inference_steps: app.defaults.steps.get(),
                strength: app.defaults.strength.get(),
            },
            model: model.as_ref().ok().map(ToString::to_string),
            how_to_install: model.err(),
        }
    }
}

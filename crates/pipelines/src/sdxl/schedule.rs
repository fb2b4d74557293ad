//! `scheduler_config.json` of a diffusion model, as diffusers writes it: how the folder wants noise to be taken away.

use domain::catalogue::Scheduler;
use nn::files::ModelFiles;
use nn::{Error, Result};
use samplers::diffusion::{DiffusionConfig, FinalSigma, MultistepConfig, Prediction, Sampler};
use samplers::spacing::TimestepSpacing;
use samplers::training::{BetaSchedule, TrainingConfig};
use serde::Deserialize;
use serde_json::Value;

const PATH: &str = "scheduler/scheduler_config.json";

/// What the file says, checked but for its class: that does not matter to a plan that names a scheduler.
pub(super) struct FolderSchedule {
    class_name: String,
    /// The sampler aside.
    config: DiffusionConfig,
    multistep: MultistepConfig,
    /// The first option that is set and that only the multistep solver reads.
    unsupported_multistep: Option<String>,
}

impl FolderSchedule {
    pub(super) fn read(files: &ModelFiles) -> Result<Self> {
        Self::parse(&files.text(PATH)?).map_err(|reason| Error::Malformed { path: files.display(PATH), reason })
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        // Python writes its infinity bare, which is no JSON; here it is the default of a bound.
        let text = text.replace(": -Infinity", ": null");
        let written: Written = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        written.check()?;
        let training = TrainingConfig::default();
        Ok(Self {
            unsupported_multistep: written.unsupported_multistep(),
            multistep: MultistepConfig {
                lower_order_final: written.lower_order_final.unwrap_or(true),
                euler_at_final: written.euler_at_final.unwrap_or(false),
            },
            config: DiffusionConfig {
                sampler: Sampler::Euler,
                training: TrainingConfig {
                    num_train_timesteps: written.num_train_timesteps.unwrap_or(training.num_train_timesteps),
                    beta_start: written.beta_start.unwrap_or(training.beta_start),
                    beta_end: written.beta_end.unwrap_or(training.beta_end),
                    beta_schedule: match written.beta_schedule.as_deref() {
                        None | Some("linear") => BetaSchedule::Linear,
                        Some("scaled_linear") => BetaSchedule::ScaledLinear,
                        Some(other) => return Err(unknown("beta_schedule", other, "linear, scaled_linear")),
                    },
                    rescale_betas_zero_snr: written.rescale_betas_zero_snr.unwrap_or(false),
                },
                prediction: match written.prediction_type.as_deref() {
                    None | Some("epsilon") => Prediction::Epsilon,
                    Some("v_prediction") => Prediction::Velocity,
                    Some(other) => return Err(unknown("prediction_type", other, "epsilon, v_prediction")),
                },
                timestep_spacing: match written.timestep_spacing.as_deref() {
                    None | Some("linspace") => TimestepSpacing::Linspace,
                    Some("leading") => TimestepSpacing::Leading,
                    Some("trailing") => TimestepSpacing::Trailing,
                    Some(other) => return Err(unknown("timestep_spacing", other, "linspace, leading, trailing")),
                },
                steps_offset: written.steps_offset.unwrap_or(0),
                use_karras_sigmas: written.use_karras_sigmas.unwrap_or(false),
                final_sigma: match written.final_sigmas_type.as_deref() {
                    None | Some("zero") => FinalSigma::Zero,
                    Some("sigma_min") => FinalSigma::Least,
                    Some(other) => return Err(unknown("final_sigmas_type", other, "zero, sigma_min")),
                },
            },
            class_name: written.class_name,
        })
    }

    /// Whether the folder holds a model distilled to a few steps without guidance: such are published with noise drawn
    /// anew in every step, and timesteps that begin at pure noise.
    pub(super) fn is_distilled(&self) -> bool {
        self.class_name == ANCESTRAL && self.config.timestep_spacing == TimestepSpacing::Trailing
    }

    /// The schedule to run: the plan's, or the folder's own. As when a scheduler of the reference is made from another
    /// one's configuration, everything but the sampler stays what the folder says.
    pub(super) fn config(&self, asked: Option<Scheduler>) -> std::result::Result<DiffusionConfig, String> {
        let multistep = Sampler::DpmMultistep(self.multistep);
        let (sampler, use_karras_sigmas) = match (asked, self.class_name.as_str()) {
            (Some(Scheduler::Euler), _) | (None, EULER) => (Sampler::Euler, self.config.use_karras_sigmas),
            (Some(Scheduler::EulerAncestral), _) | (None, ANCESTRAL) => (Sampler::EulerAncestral, false),
            (Some(Scheduler::DpmPlusPlus2mKarras), _) => (multistep, true),
            (None, MULTISTEP) => (multistep, self.config.use_karras_sigmas),
            (None, other) => {
                let known = Scheduler::ALL.map(Scheduler::as_str).join(", ");
                return Err(format!("scheduler: got none, and this version has no {other}; allowed: {known}"));
            }
        };
        match &self.unsupported_multistep {
            // Another class may have an option of the same name that means something else.
            Some(reason) if asked.is_none() && sampler == multistep => Err(reason.clone()),
            _ => Ok(DiffusionConfig { sampler, use_karras_sigmas, ..self.config.clone() }),
        }
    }
}

const EULER: &str = "EulerDiscreteScheduler";
const ANCESTRAL: &str = "EulerAncestralDiscreteScheduler";
const MULTISTEP: &str = "DPMSolverMultistepScheduler";

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "_class_name")]
    class_name: String,
    num_train_timesteps: Option<u32>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    beta_schedule: Option<String>,
    trained_betas: Option<Value>,
    prediction_type: Option<String>,
    interpolation_type: Option<String>,
    timestep_type: Option<String>,
    timestep_spacing: Option<String>,
    steps_offset: Option<u32>,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    use_lu_lambdas: Option<bool>,
    use_flow_sigmas: Option<bool>,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    final_sigmas_type: Option<String>,
    rescale_betas_zero_snr: Option<bool>,
    lower_order_final: Option<bool>,
    euler_at_final: Option<bool>,
    solver_order: Option<u32>,
    algorithm_type: Option<String>,
    solver_type: Option<String>,
    thresholding: Option<bool>,
    lambda_min_clipped: Option<f64>,
    variance_type: Option<String>,
}

impl Written {
    /// Options that every sampler would have to follow.
    fn check(&self) -> std::result::Result<(), String> {
        let switches = [
            ("trained_betas", self.trained_betas.is_some()),
            ("use_exponential_sigmas", self.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", self.use_beta_sigmas == Some(true)),
            ("use_lu_lambdas", self.use_lu_lambdas == Some(true)),
            ("use_flow_sigmas", self.use_flow_sigmas == Some(true)),
            ("sigma_min", self.sigma_min.is_some()),
            ("sigma_max", self.sigma_max.is_some()),
        ];
        if let Some((field, _)) = switches.into_iter().find(|(_, is_set)| *is_set) {
            return Err(format!("{field} is set, and no sampler here supports it"));
        }
        let words = [
            ("interpolation_type", &self.interpolation_type, "linear"),
            ("timestep_type", &self.timestep_type, "discrete"),
        ];
        words.into_iter().try_for_each(|(field, got, allowed)| only(field, got.as_deref(), allowed))
    }

    /// Options that the multistep solver alone would have to follow.
    fn unsupported_multistep(&self) -> Option<String> {
        let switches = [
            ("thresholding", self.thresholding == Some(true)),
            ("lambda_min_clipped", self.lambda_min_clipped.is_some()),
            ("variance_type", self.variance_type.is_some()),
            ("solver_order", self.solver_order.is_some_and(|order| order != 2)),
        ];
        if let Some((field, _)) = switches.into_iter().find(|(_, is_set)| *is_set) {
            return Some(format!("{field} is set, and no sampler here supports it"));
        }
        let words =
            [("algorithm_type", &self.algorithm_type, "dpmsolver++"), ("solver_type", &self.solver_type, "midpoint")];
        words.into_iter().find_map(|(field, got, allowed)| only(field, got.as_deref(), allowed).err())
    }
}

fn only(field: &str, got: Option<&str>, allowed: &str) -> std::result::Result<(), String> {
    match got {
        Some(got) if got != allowed => Err(unknown(field, got, allowed)),
        _ => Ok(()),
    }
}

fn unknown(field: &str, got: &str, allowed: &str) -> String {
    format!("{field}: got {got}; allowed: {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> std::result::Result<FolderSchedule, String> {
        let common = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear""#;
        FolderSchedule::parse(&format!("{{{common}, {more}}}"))
    }

    #[test]
    fn a_published_multistep_file_with_pythons_infinity_is_read() {
        let more = r#""_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
            "algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": true, "timestep_spacing": "leading",
            "steps_offset": 1, "clip_sample": false, "trained_betas": null, "euler_at_final": true"#;
        let folder = parse(more).unwrap();
        let config = folder.config(None).unwrap();
        let multistep = MultistepConfig { lower_order_final: true, euler_at_final: true };
        assert_eq!(config.sampler, Sampler::DpmMultistep(multistep));
        assert!(config.use_karras_sigmas && config.steps_offset == 1 && !folder.is_distilled());
    }

    #[test]
    fn a_plan_changes_the_sampler_and_nothing_else() {
        let folder = parse(r#""_class_name": "DDIMScheduler", "timestep_spacing": "trailing""#).unwrap();
        let error = folder.config(None).unwrap_err();
        assert!(error.contains("DDIMScheduler") && error.contains("dpmpp-2m-karras"), "{error}");
        for scheduler in Scheduler::ALL {
            let config = folder.config(Some(scheduler)).unwrap();
            assert_eq!(config.timestep_spacing, TimestepSpacing::Trailing);
            assert_eq!(config.use_karras_sigmas, scheduler == Scheduler::DpmPlusPlus2mKarras);
        }
    }

    #[test]
    fn a_distilled_model_is_known_by_its_schedule() {
        let check = |more: &str, expect: bool| assert_eq!(parse(more).unwrap().is_distilled(), expect, "{more}");
        check(r#""_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing""#, true);
        check(r#""_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "leading""#, false);
        check(r#""_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing""#, false);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let check = |more: &str, field: &str| {
            let read = parse(&format!(r#""_class_name": "DPMSolverMultistepScheduler", {more}"#));
            let error = read.and_then(|folder| folder.config(None)).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        };
        check(r#""solver_order": 3"#, "solver_order");
        check(r#""algorithm_type": "sde-dpmsolver++""#, "algorithm_type: got sde-dpmsolver++");
        check(r#""lambda_min_clipped": -5.1"#, "lambda_min_clipped");
        check(r#""use_exponential_sigmas": true"#, "use_exponential_sigmas");
        check(r#""prediction_type": "sample""#, "prediction_type: got sample");
        check(r#""sigma_max": 80.0"#, "sigma_max");
        check(r#""interpolation_type": "log_linear""#, "interpolation_type");
        let cosine = r#"{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "squaredcos_cap_v2"}"#;
        assert!(FolderSchedule::parse(cosine).err().unwrap().starts_with("beta_schedule: got squaredcos_cap_v2"));
    }
}

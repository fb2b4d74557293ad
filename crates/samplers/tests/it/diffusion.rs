//! SDXL's schedules: every recorded configuration and number of steps, and what whole runs make of plain numbers.

use crate::golden;
use samplers::diffusion::{DiffusionConfig, DiffusionSchedule, FinalSigma, MultistepConfig, Prediction, Sampler};
use samplers::spacing::TimestepSpacing;
use samplers::training::{BetaSchedule, TrainingConfig};
use serde_json::Value;

/// Relative. The reference's square root may be wrong in the last bit, and another processor's in another.
const SIGMA_TOLERANCE: f64 = 2.0 * f32::EPSILON as f64;
/// Relative above 1. Where the training is bent to end in noise alone, a last bit of such a root is a share of the noise.
const BENT_SIGMA_TOLERANCE: f64 = 3e-6;
/// Of Karras timesteps that are not rounded: the reference takes them from logarithms in f32.
const KARRAS_TIMESTEP_TOLERANCE: f64 = 2e-3;
/// Relative to the largest number of a run; the reference rounds to f32 after every operation.
const LATENT_TOLERANCE: f64 = 3e-6;

#[test]
fn every_recorded_schedule_agrees() {
    let text = std::fs::read_to_string(golden("diffusion_schedules.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let strengths = f64s(&document["strengths"]);
    let recorded = document["schedules"].as_array().unwrap();
    for record in recorded {
        let name = record["config"].as_str().unwrap();
        let config = config_from(&document["configs"][name]);
        let n_steps = usize_of(&record["n_steps"]);
        let label = format!("{name}, {n_steps} steps");

        let schedule = DiffusionSchedule::new(&config, n_steps).unwrap();

        let is_bent = config.training.rescale_betas_zero_snr;
        let sigma_tolerance = |sigma: f64| {
            if is_bent { BENT_SIGMA_TOLERANCE * sigma.max(1.0) } else { SIGMA_TOLERANCE * sigma }
        };
        assert_close(&label, &widened(schedule.sigmas()), &f32s(&record["sigmas"]), sigma_tolerance);
        let rounds = !(config.use_karras_sigmas && config.sampler == Sampler::Euler);
        let tolerance = if rounds { 0.0 } else { KARRAS_TIMESTEP_TOLERANCE };
        assert_close(&label, &widened(schedule.timesteps()), &f32s(&record["timesteps"]), |_| tolerance);
        let noise_scale = record["noise_scale"].as_f64().unwrap();
        assert_close(&label, &[schedule.noise_scale()], &[noise_scale], sigma_tolerance);
        for (strength, first_step) in strengths.iter().zip(record["first_steps"].as_array().unwrap()) {
            assert_eq!(schedule.first_step(*strength), usize_of(first_step), "{label}, strength {strength}");
        }
        for run in record["runs"].as_array().unwrap() {
            check_run(&label, &schedule, run, &document);
        }
    }
    assert!(recorded.len() > 350, "only {} schedules", recorded.len());
}

fn check_run(label: &str, schedule: &DiffusionSchedule, run: &Value, document: &Value) {
    let begin = usize_of(&run["begin"]);
    let label = format!("{label}, from step {begin}");
    let (clean, noise) = (f64s(&document["latent"]), f64s(&document["noise"]));
    let outputs: Vec<Vec<f64>> = document["outputs"].as_array().unwrap().iter().map(f64s).collect();
    let mix = schedule.noise_mix(begin);
    let mixed = clean.iter().zip(&noise).map(|(x, n)| f64::from(mix.latent) * x + f64::from(mix.noise) * n);
    let mut latent: Vec<f64> = mixed.collect();
    let recorded: Vec<Vec<f64>> = run["latents"].as_array().unwrap().iter().map(f32s).collect();
    let scale = recorded.iter().flatten().chain(&latent).fold(1.0, |max, x| f64::max(max, x.abs()));
    let tolerance = LATENT_TOLERANCE * scale;
    assert_close(&label, &latent, &f32s(&run["start"]), |_| tolerance);

    let mut latents = Vec::new();
    let mut previous = vec![0.0; latent.len()];
    for (idx, step) in schedule.steps(begin).unwrap().iter().enumerate() {
        let seen = latent.iter().map(|x| step.input_scale * x);
        let output: Vec<f64> = seen.zip(&outputs[idx % outputs.len()]).map(|(x, answer)| answer + 0.1 * x).collect();
        let estimate = |i: usize| step.denoised.sample * latent[i] + step.denoised.output * output[i];
        let denoised: Vec<f64> = (0..latent.len()).map(estimate).collect();
        let next = |i: usize| {
            let drawn = step.next.noise.map_or(0.0, |factor| factor * noise[i]);
            let kept = step.next.sample * latent[i] + step.next.denoised * denoised[i];
            kept + step.next.previous * previous[i] + drawn
        };
        latent = (0..latent.len()).map(next).collect();
        previous = denoised;
        latents.push(latent.clone());
    }
    let n_kept = usize_of(&document["n_steps_kept"]);
    if latents.len() > 2 * n_kept {
        latents.drain(n_kept..latents.len() - n_kept);
    }
    assert_eq!(latents.len(), recorded.len(), "{label}");
    for (idx, (ours, theirs)) in latents.iter().zip(&recorded).enumerate() {
        assert_close(&format!("{label}, latent {idx}"), ours, theirs, |_| tolerance);
    }
}

fn config_from(changes: &Value) -> DiffusionConfig {
    let mut multistep = MultistepConfig { lower_order_final: true, euler_at_final: false };
    let mut config = DiffusionConfig {
        sampler: Sampler::Euler,
        training: TrainingConfig::default(),
        prediction: Prediction::Epsilon,
        timestep_spacing: TimestepSpacing::Linspace,
        steps_offset: 0,
        use_karras_sigmas: false,
        final_sigma: FinalSigma::Zero,
    };
    for (key, value) in changes.as_object().unwrap() {
        match (key.as_str(), value.as_str()) {
            ("_class_name", _) => {}
            ("beta_start", _) => config.training.beta_start = value.as_f64().unwrap(),
            ("beta_end", _) => config.training.beta_end = value.as_f64().unwrap(),
            ("beta_schedule", Some("scaled_linear")) => config.training.beta_schedule = BetaSchedule::ScaledLinear,
            ("num_train_timesteps", _) => config.training.num_train_timesteps = usize_of(value) as u32,
            ("rescale_betas_zero_snr", _) => config.training.rescale_betas_zero_snr = value.as_bool().unwrap(),
            ("prediction_type", Some("v_prediction")) => config.prediction = Prediction::Velocity,
            ("timestep_spacing", Some("leading")) => config.timestep_spacing = TimestepSpacing::Leading,
            ("timestep_spacing", Some("trailing")) => config.timestep_spacing = TimestepSpacing::Trailing,
            ("steps_offset", _) => config.steps_offset = usize_of(value) as u32,
            ("use_karras_sigmas", _) => config.use_karras_sigmas = value.as_bool().unwrap(),
            ("final_sigmas_type", Some("sigma_min")) => config.final_sigma = FinalSigma::Least,
            ("lower_order_final", _) => multistep.lower_order_final = value.as_bool().unwrap(),
            ("euler_at_final", _) => multistep.euler_at_final = value.as_bool().unwrap(),
            _ => panic!("no field for {key}: {value}"),
        }
    }
    config.sampler = match changes["_class_name"].as_str().unwrap() {
        "EulerDiscreteScheduler" => Sampler::Euler,
        "EulerAncestralDiscreteScheduler" => Sampler::EulerAncestral,
        "DPMSolverMultistepScheduler" => Sampler::DpmMultistep(multistep),
        other => panic!("no sampler {other}"),
    };
    config
}

#[track_caller]
fn assert_close(label: &str, ours: &[f64], theirs: &[f64], tolerance: impl Fn(f64) -> f64) {
    assert_eq!(ours.len(), theirs.len(), "{label}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let is_close = (ours - theirs).abs() <= tolerance(theirs.abs());
        assert!(is_close, "{label}: {ours} differs from {theirs} by {:e}", (ours - theirs).abs());
    }
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Recorded numbers are the shortest that round to the reference's f32.
fn f32s(value: &Value) -> Vec<f64> {
    f64s(value).into_iter().map(|value| f64::from(value as f32)).collect()
}

fn f64s(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn usize_of(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

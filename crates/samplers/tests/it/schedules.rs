//! Noise schedules: every recorded combination of configuration, steps, picture size and strength.

use crate::golden;
use samplers::flow_match::{FlowMatchConfig, FlowMatchSchedule, TimeShift};
use serde_json::Value;

#[test]
fn every_recorded_schedule_agrees_to_the_bit() {
    let text = std::fs::read_to_string(golden("schedules.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let (latent, noise) = (f32s(&document["latent"]), f32s(&document["noise"]));
    let strengths: Vec<f64> = list(&document["strengths"]).iter().map(|value| value.as_f64().unwrap()).collect();
    let recorded = list(&document["schedules"]);
    for record in recorded {
        let name = record["config"].as_str().unwrap();
        let config = config_from(&document["configs"][name]);
        let (n_steps, seq_len) = (usize_of(&record["n_steps"]), usize_of(&record["image_seq_len"]));
        let label = format!("{name}, {n_steps} steps, {seq_len} tokens");

        let schedule = FlowMatchSchedule::new(&config, n_steps, seq_len).unwrap();

        assert_bits(&label, schedule.sigmas(), &f32s(&record["sigmas"]));
        assert_bits(&label, schedule.timesteps(), &f32s(&record["timesteps"]));
        for (strength, first_step) in strengths.iter().zip(list(&record["first_steps"])) {
            assert_eq!(schedule.first_step(*strength), usize_of(first_step), "{label}, strength {strength}");
        }
        for (step, mixed) in list(&record["mixed"]).iter().enumerate() {
            let mix = schedule.noise_mix(step);
            let ours: Vec<f32> = latent.iter().zip(&noise).map(|(x, n)| mix.noise * n + mix.latent * x).collect();
            assert_bits(&format!("{label}, noised for step {step}"), &ours, &f32s(mixed));
        }
        for (step, stepped) in list(&record["stepped"]).iter().enumerate() {
            let ours: Vec<f32> = latent.iter().zip(&noise).map(|(x, v)| x + schedule.delta(step) * v).collect();
            assert_bits(&format!("{label}, after step {step}"), &ours, &f32s(stepped));
        }
    }
    assert!(recorded.len() > 400, "only {} schedules", recorded.len());
}

fn config_from(changes: &Value) -> FlowMatchConfig {
    let mut config = FlowMatchConfig::default();
    for (key, value) in changes.as_object().unwrap() {
        match key.as_str() {
            "shift" => config.shift = value.as_f64().unwrap(),
            "use_dynamic_shifting" => config.use_dynamic_shifting = value.as_bool().unwrap(),
            "base_shift" => config.base_shift = value.as_f64().unwrap(),
            "max_shift" => config.max_shift = value.as_f64().unwrap(),
            "base_image_seq_len" => config.base_image_seq_len = usize_of(value) as u32,
            "max_image_seq_len" => config.max_image_seq_len = usize_of(value) as u32,
            "num_train_timesteps" => config.num_train_timesteps = usize_of(value) as u32,
            "shift_terminal" => config.shift_terminal = value.as_f64(),
            "time_shift_type" if value == "linear" => config.time_shift_type = TimeShift::Linear,
            _ => panic!("no field for {key}: {value}"),
        }
    }
    config
}

#[track_caller]
fn assert_bits(label: &str, ours: &[f32], reference: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(ours) == bits(reference), "{label}: {ours:?} differs from {reference:?}");
}

fn f32s(value: &Value) -> Vec<f32> {
    list(value).iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn usize_of(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

#[track_caller]
fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

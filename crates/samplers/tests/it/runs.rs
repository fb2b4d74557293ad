//! Whole runs: every draw and every schedule that the recorded pipelines made, in their order.

use crate::golden;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use samplers::flow_match::{FlowMatchConfig, FlowMatchSchedule, TimeShift};
use samplers::noise::TorchGenerator;
use serde_json::Value;
use std::path::Path;

/// Pixels of a side per token of the transformer.
const TOKEN_PX: usize = 16;

#[test]
fn every_recorded_run_draws_the_same_noise_on_the_same_schedule() {
    let mut n_runs = 0;
    for entry in std::fs::read_dir(golden("cases")).unwrap() {
        let folder = entry.unwrap().path();
        let case = json(&folder.join("case.json"));
        let name = case["case"].as_str().unwrap();
        if name.starts_with("flux_") || name.starts_with("sdxl_") {
            let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
            let recorded = SafeTensors::deserialize(&bytes).unwrap();
            check_noise(name, &case, &recorded);
            // Those of SDXL are compared where their folders' configuration is read.
            if name.starts_with("flux_") {
                check_schedule(name, &case, &recorded);
            }
            n_runs += 1;
        }
    }
    assert!(n_runs >= 56, "only {n_runs} runs");
}

/// A run has one generator, or one for each picture; the first of them also serves whatever comes before the pictures.
fn check_noise(name: &str, case: &Value, recorded: &SafeTensors<'_>) {
    let seeds: Vec<u64> = match &case["seed"] {
        Value::Array(seeds) => seeds.iter().map(|seed| seed.as_u64().unwrap()).collect(),
        seed => vec![seed.as_u64().unwrap()],
    };
    let mut generators: Vec<TorchGenerator> = seeds.into_iter().map(TorchGenerator::new).collect();
    let draws = recorded.names().into_iter().filter(|tensor| tensor.starts_with("rng_draw_")).count();
    assert!(draws >= generators.len(), "{name}");
    for idx in 0..draws {
        let expect = f32s(&recorded.tensor(&format!("rng_draw_{idx}")).unwrap());
        let turn = (idx + generators.len()).saturating_sub(draws);
        let drawn = generators[turn].randn_f32(expect.len());
        assert!(bits(&drawn) == bits(&expect), "{name}: draw {idx} differs");
    }
}

fn check_schedule(name: &str, case: &Value, recorded: &SafeTensors<'_>) {
    let kwargs = &case["kwargs"];
    let usize_of = |field: &str| usize::try_from(kwargs[field].as_u64().unwrap()).unwrap();
    let model = golden("models").join(case["model"].as_str().unwrap());
    let config = config_from(&json(&model.join("scheduler/scheduler_config.json")));
    let seq_len = (usize_of("height") / TOKEN_PX) * (usize_of("width") / TOKEN_PX);

    let schedule = FlowMatchSchedule::new(&config, usize_of("num_inference_steps"), seq_len).unwrap();

    let tensor = |part: &str| recorded.tensor(part).unwrap();
    assert_eq!(bits(schedule.sigmas()), bits(&f32s(&tensor("scheduler.sigmas"))), "{name}");
    assert_eq!(bits(schedule.timesteps()), bits(&f32s(&tensor("scheduler.timesteps"))), "{name}");
    // A pipeline that begins at the beginning may say nothing of it, which is recorded as -1.
    let begin = i64::from_le_bytes(tensor("scheduler.begin_index").data().try_into().unwrap()).max(0);
    assert_eq!(schedule.first_step(kwargs["strength"].as_f64().unwrap_or(1.0)) as i64, begin, "{name}");
}

fn config_from(file: &Value) -> FlowMatchConfig {
    let f64_of = |field: &str| file[field].as_f64().unwrap();
    let u32_of = |field: &str| u32::try_from(file[field].as_u64().unwrap()).unwrap();
    let bool_of = |field: &str| file[field].as_bool().unwrap();
    assert_eq!(file["time_shift_type"], "exponential");
    FlowMatchConfig {
        num_train_timesteps: u32_of("num_train_timesteps"),
        shift: f64_of("shift"),
        use_dynamic_shifting: bool_of("use_dynamic_shifting"),
        base_shift: f64_of("base_shift"),
        max_shift: f64_of("max_shift"),
        base_image_seq_len: u32_of("base_image_seq_len"),
        max_image_seq_len: u32_of("max_image_seq_len"),
        time_shift_type: TimeShift::Exponential,
        shift_terminal: file["shift_terminal"].as_f64(),
        use_karras_sigmas: bool_of("use_karras_sigmas"),
        use_exponential_sigmas: bool_of("use_exponential_sigmas"),
        use_beta_sigmas: bool_of("use_beta_sigmas"),
        invert_sigmas: bool_of("invert_sigmas"),
        stochastic_sampling: bool_of("stochastic_sampling"),
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn f32s(tensor: &TensorView<'_>) -> Vec<f32> {
    let (values, rest) = tensor.data().as_chunks::<4>();
    assert!(rest.is_empty());
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

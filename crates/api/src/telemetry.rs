//! The process's recorder of numbers, which `GET /metrics` shows.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds for everything that is measured in seconds: a status takes milliseconds, a painting may take an hour.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// Installs the recorder; once per process. `run_upkeep` of the handle is to be called every few seconds.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()
}

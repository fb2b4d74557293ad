//! The worker's metrics, named once.

use domain::id::ModelId;
use domain::task::Task;
use store::contract::Reaped;

pub(crate) fn finished(task: &Task) {
    let app = task.request.app.as_str().to_owned();
    metrics::counter!("pentimento_tasks_finished_total", "state" => task.state.as_str(), "app" => app).increment(1);
}

pub(crate) fn retried(task: &Task) {
    let app = task.request.app.as_str().to_owned();
    metrics::counter!("pentimento_tasks_retried_total", "app" => app).increment(1);
}

pub(crate) fn painted(task: &Task, model: &ModelId, runtime_s: f64) {
    let (app, model) = (task.request.app.as_str().to_owned(), model.as_str().to_owned());
    metrics::histogram!("pentimento_run_seconds", "app" => app, "model" => model).record(runtime_s);
}

pub(crate) fn reaped(reaped: Reaped) {
    metrics::counter!("pentimento_tasks_reaped_total", "outcome" => "requeued").increment(reaped.requeued);
    metrics::counter!("pentimento_tasks_reaped_total", "outcome" => "failed").increment(reaped.failed);
}

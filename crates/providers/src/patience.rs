//! Waiting for somebody else without turning a deaf ear to whoever asks to stop.

use engine::{EngineError, Observer};
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

/// How often the observer is asked whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The outcome of the work; dropped where it stands once the observer wants no more of it.
pub(crate) async fn watched<T>(
    observer: &mut dyn Observer,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            () = sleep(ASK_EVERY) => {
                if observer.go_on().is_break() {
                    return Err(EngineError::Cancelled);
                }
            }
        }
    }
}

//! Every kernel at the shapes of the models, and its share of what the processor can do at most.
//!
//! `cargo bench -p kernels -- --quick` for all of them, `cargo bench -p kernels -- attention` for one family.

mod attention;
mod conv;
mod meter;
mod norm;
mod packed;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, packed::bench, attention::bench, conv::bench, norm::bench);
criterion_main!(limited, benches);

/// Before any other: keeps to fewer instructions if the environment says so.
fn limited() {
    if let Ok(name) = std::env::var("PENTIMENTO_INSTRUCTIONS") {
        kernels::limit(&name).expect("a limit");
    }
}

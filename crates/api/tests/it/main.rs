//! The API over real sockets, with the real store and the real worker; only the engine is a fake.

mod apps;
mod conversation;
mod drain;
mod errors;
mod fields;
mod gpus;
mod hostile;
mod idempotency;
mod openapi;
mod operation;
mod owners;
mod queue;
mod results;
mod server;
mod shape;
mod spellings;
mod watching;

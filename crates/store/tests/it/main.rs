//! The store as its callers see it: every test opens a real folder.

mod crash;
mod inspect;
mod keys;
mod model;
mod queue;
mod support;
mod tasks;

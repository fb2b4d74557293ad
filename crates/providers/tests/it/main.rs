//! Ideogram's engine against a local server that speaks the API, well and badly.

mod faults;
mod painting;
mod results;
mod support;

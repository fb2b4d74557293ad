//! Every limit of the system that a client can meet, named once.

/// Longest side of a painted picture that an app without its own size list may ask for, pixels.
pub const SIDE_PX_MAX: u32 = 1536;
/// Shortest side that a request may ask for, pixels.
pub const SIDE_PX_MIN: u32 = 256;
/// Body of a request, bytes. Holds a 20 MiB picture as base64 in a `data:` URI.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// A fetched or decoded-from-base64 picture, bytes.
pub const SOURCE_BYTES_MAX: usize = 20 << 20;
/// All pictures together that are being fetched, decoded from `data:` URIs, checked or stored, bytes.
pub const SOURCES_BYTES_MAX: usize = 512 << 20;
/// All results together that are being sent, bytes.
pub const RESULTS_BYTES_MAX: usize = 512 << 20;
/// A picture's pixels, refused before decoding.
pub const SOURCE_PIXELS_MAX: u64 = 64_000_000;
/// The whole fetch of a picture, redirects included, seconds.
pub const FETCH_S_MAX: u64 = 10;
/// Redirects that a fetch follows.
pub const REDIRECTS_MAX: usize = 3;
/// A picture's URL, characters, unless it is a `data:` URI.
pub const URL_CHARS_MAX: usize = 8192;
/// A prompt or a negative prompt, characters.
pub const PROMPT_CHARS_MAX: usize = 4000;
/// A caller's own reference to a task, characters.
pub const REFERENCE_CHARS_MAX: usize = 256;
/// An `Idempotency-Key`, characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Tasks queued or running, all keys together.
pub const QUEUE_TASKS_MAX: u64 = 1000;
/// Tasks queued or running for one key.
pub const KEY_TASKS_MAX: u64 = 100;
/// How often a task is tried before it ends as failed.
pub const ATTEMPTS_MAX: u32 = 3;

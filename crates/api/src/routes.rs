//! The routes: extract, call `app`, show.

pub(crate) mod apps;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod image_to_image;
pub(crate) mod page;
pub(crate) mod results;
pub(crate) mod status;
pub(crate) mod tasks;

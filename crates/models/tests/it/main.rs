//! Whole models against the reference's, tensor by tensor.

mod depth_anything;

//! What Redux sees with: SigLIP's vision tower and the embedder, whose names are the same everywhere.

use super::{Shapes, count, side};
use serde_json::{Value, json};

/// Of the published tower (so400m).
const HEAD_DIM: usize = 72;

/// `image_encoder/config.json`, from the shapes.
pub(super) fn siglip_config(shapes: &Shapes) -> Result<Value, String> {
    let embeddings = "vision_model.embeddings";
    let patches = format!("{embeddings}.patch_embedding.weight");
    let (hidden, patch_size) = (side(shapes, &patches, 0)?, side(shapes, &patches, 3)?);
    let n_patches = side(shapes, &format!("{embeddings}.position_embedding.weight"), 0)?;
    Ok(json!({
        "hidden_size": hidden,
        "intermediate_size": side(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": count(shapes, "vision_model.encoder.layers"),
        "num_attention_heads": hidden / HEAD_DIM,
        "num_channels": side(shapes, &patches, 1)?,
        "image_size": n_patches.isqrt().saturating_mul(patch_size),
        "patch_size": patch_size,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }))
}

/// `image_embedder/config.json`, from the shapes.
pub(super) fn redux_config(shapes: &Shapes) -> Result<Value, String> {
    Ok(json!({
        "redux_dim": side(shapes, "redux_up.weight", 1)?,
        "txt_in_features": side(shapes, "redux_down.weight", 0)?,
    }))
}

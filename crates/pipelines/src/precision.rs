//! Which number format each component multiplies in.

/// The number format that a user asks for. Norms, softmax and all that passes between layers are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Exact where that is fast enough anyway; the fastest format for components of more than [`LARGE`] numbers.
    #[default]
    Auto,
    /// In step with the reference.
    F32,
    /// Products of numbers of 8 significant bits.
    Bf16,
    /// What denoises multiplies 8-bit integers; what encodes or decodes, bf16.
    Int8,
}

/// What a component is for, which says how much rounding it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Computes once for a picture what every step then sees.
    Encoder,
    /// Computes every step, which makes up for some of what the one before it lost.
    Denoiser,
    /// Its rounding is seen as it is: that of bf16 as some two levels of 255.
    Autoencoder,
}

/// Numbers of a component above which [`Precision::Auto`] trades exactness for speed: a smaller one paints a picture
/// within seconds.
const LARGE: u64 = 50_000_000;

impl Precision {
    pub const ALL: [Self; 4] = [Self::Auto, Self::F32, Self::Bf16, Self::Int8];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Of a component of so many numbers.
    pub(crate) fn of(self, role: Role, n_values: u64) -> nn::Precision {
        let asked = match self {
            Self::Auto if n_values <= LARGE => nn::Precision::F32,
            Self::Auto => nn::Precision::fastest(),
            Self::F32 => nn::Precision::F32,
            Self::Bf16 => nn::Precision::Bf16,
            Self::Int8 => nn::Precision::Int8,
        };
        asked.min(role.coarsest())
    }
}

impl Role {
    fn coarsest(self) -> nn::Precision {
        match self {
            Self::Encoder | Self::Autoencoder => nn::Precision::Bf16,
            Self::Denoiser => nn::Precision::Int8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_component_is_rounded_more_than_it_takes() {
        let of = |precision: Precision, role| precision.of(role, 1).as_str();
        for (precision, encoder, denoiser, autoencoder) in [
            (Precision::Auto, "f32", "f32", "f32"),
            (Precision::F32, "f32", "f32", "f32"),
            (Precision::Bf16, "bf16", "bf16", "bf16"),
            (Precision::Int8, "bf16", "int8", "bf16"),
        ] {
            let roles = [Role::Encoder, Role::Denoiser, Role::Autoencoder].map(|role| of(precision, role));
            assert_eq!(roles, [encoder, denoiser, autoencoder], "{precision:?}");
        }
        assert_eq!(Precision::Auto.of(Role::Denoiser, LARGE + 1), nn::Precision::fastest());
    }
}

//! A typed id for each noun, so that a key is never taken for a task.

use std::fmt;

/// Declares an id that looks like `prefix_` and lower-case hexadecimal digits, made from random bytes.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// How many random bytes one id takes.
            pub const N_BYTES: usize = $bytes;

            /// Names a new noun. The bytes must come from the system's random source.
            pub fn from_random(bytes: [u8; $bytes]) -> Self {
                let mut text = String::from($prefix);
                for byte in bytes {
                    text.push_str(&format!("{byte:02x}"));
                }
                Self(text)
            }

            /// Reads an id as a client or a database row spells it; `None` if it cannot be one.
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix)?;
                let well_formed = digits.len() == 2 * $bytes
                    && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                well_formed.then(|| Self(text.to_owned()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Declares an id that people choose: lower or upper case letters, digits, `-`, `_` and `.`.
macro_rules! chosen_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// `None` unless the text is 1 to 128 letters, digits, `-`, `_` or `.`, not starting with a dot.
            pub fn parse(text: &str) -> Option<Self> {
                let well_formed = (1..=128).contains(&text.len())
                    && !text.starts_with('.')
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
                well_formed.then(|| Self(text.to_owned()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

random_id! {
    /// One accepted request for pictures.
    TaskId, "task_", 16
}
random_id! {
    /// One API key; not the secret itself.
    KeyId, "key_", 8
}
random_id! {
    /// One process that takes leases.
    WorkerId, "worker_", 8
}
chosen_id! {
    /// One entry of the catalogue, as clients spell it (`ap-fGhKl3mfkdlpqrshuwwabc`).
    AppId
}
chosen_id! {
    /// One set of weights (`flux-dev`, `pentimento-nano`): the name of its folder.
    ModelId
}
chosen_id! {
    /// Where one stored file lies. Results carry 128 random bits in it, so that a name cannot be guessed.
    BlobKey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_survives_its_own_spelling() {
        let id = TaskId::from_random([0xab; 16]);
        assert_eq!(id.as_str(), "task_abababababababababababababababab");
        assert_eq!(TaskId::parse(id.as_str()), Some(id));
    }

    #[test]
    fn an_id_of_another_noun_is_refused() {
        let key = KeyId::from_random([1; 8]);
        assert_eq!(TaskId::parse(key.as_str()), None);
        for text in ["", "task_", "task_ABABABABABABABABABABABABABABABAB", "task_zz", "../etc/passwd"] {
            assert_eq!(TaskId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_chosen_id_cannot_leave_its_folder() {
        for text in ["", ".", "..", "a/b", "a\\b", "a b", "é", ".hidden"] {
            assert_eq!(BlobKey::parse(text), None, "{text}");
        }
        assert!(BlobKey::parse("r-0123.png").is_some());
    }
}

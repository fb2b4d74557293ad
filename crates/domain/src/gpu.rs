//! The classes of GPU that a client may name, those that a server offers, and what comes of a class that it does not.

use crate::fault::Invalid;
use crate::request::InferenceType;

/// What the workers of a server offer. At least one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOffer {
    /// In the order of [`InferenceType::ALL`].
    offered: [bool; InferenceType::ALL.len()],
    fallback: GpuFallback,
}

/// What becomes of a task that names a class which no worker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuFallback {
    /// It is refused.
    Refuse,
    /// The next stronger class that is offered takes it; without one, the strongest.
    Nearest,
}

impl GpuFallback {
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Nearest];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Nearest => "nearest",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|fallback| fallback.as_str() == text);
        found.ok_or_else(|| Invalid::new("gpu-fallback", text, "refuse or nearest"))
    }
}

impl GpuOffer {
    /// A machine that takes whatever comes.
    pub const ANY: Self = Self { offered: [true; InferenceType::ALL.len()], fallback: GpuFallback::Refuse };

    /// `None` without a class.
    pub fn new(classes: &[InferenceType], fallback: GpuFallback) -> Option<Self> {
        let offered = InferenceType::ALL.map(|class| classes.contains(&class));
        offered.contains(&true).then_some(Self { offered, fallback })
    }

    /// The classes that are offered, weakest first.
    pub fn classes(self) -> impl Iterator<Item = InferenceType> {
        InferenceType::ALL.into_iter().zip(self.offered).filter(|(_, offered)| *offered).map(|(class, _)| class)
    }

    /// The classes whose tasks are painted here: with a fallback all of them, since a task may have been accepted when
    /// more was offered.
    pub fn painted(self) -> Vec<InferenceType> {
        match self.fallback {
            GpuFallback::Refuse => self.classes().collect(),
            GpuFallback::Nearest => InferenceType::ALL.to_vec(),
        }
    }

    /// The class that a task runs on; `Err` names what is offered.
    pub fn place(self, wanted: InferenceType) -> Result<InferenceType, Invalid> {
        if self.fallback == GpuFallback::Nearest || self.classes().any(|class| class == wanted) {
            return Ok(self.nearest(wanted));
        }
        let offered: Vec<&str> = self.classes().map(InferenceType::as_str).collect();
        Err(Invalid::new(
            "inference_type",
            wanted.as_str(),
            format!("{}, which this server offers", offered.join(", ")),
        ))
    }

    /// The class itself if it is offered, else the next stronger one, else the strongest: for who does not care.
    pub fn nearest(self, wanted: InferenceType) -> InferenceType {
        let strong_enough = self.classes().find(|class| *class >= wanted);
        strong_enough.or(self.classes().last()).expect("at least one class is offered, this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InferenceType::{A10g, A100, H100};

    fn offer(classes: &[InferenceType], fallback: GpuFallback) -> GpuOffer {
        GpuOffer::new(classes, fallback).unwrap()
    }

    #[test]
    fn what_is_offered_is_where_it_runs() {
        for class in InferenceType::ALL {
            assert_eq!(GpuOffer::ANY.place(class), Ok(class));
        }
        assert_eq!(GpuOffer::new(&[], GpuFallback::Refuse), None);
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let offer = offer(&[A100, A10g, A10g], GpuFallback::Refuse);
        assert_eq!(
            offer.place(H100).unwrap_err().to_string(),
            "inference_type: got h100; allowed: a10g, a100, which this server offers"
        );
        assert_eq!(offer.place(A100), Ok(A100));
        assert_eq!(offer.painted(), [A10g, A100]);
    }

    #[test]
    fn or_it_goes_to_the_next_stronger_class_or_the_strongest() {
        let nearest = |classes: &[InferenceType], wanted| offer(classes, GpuFallback::Nearest).place(wanted).unwrap();
        assert_eq!(nearest(&[A100, H100], A10g), A100);
        assert_eq!(nearest(&[A10g, H100], A100), H100);
        assert_eq!(nearest(&[A10g, A100], H100), A100);
        assert_eq!(nearest(&[H100], H100), H100);
        assert_eq!(offer(&[A10g], GpuFallback::Nearest).painted(), InferenceType::ALL);
    }
}

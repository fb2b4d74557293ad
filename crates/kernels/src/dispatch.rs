//! One body, compiled for several instruction sets, chosen at run time.

use std::sync::OnceLock;

/// Declares `fn name(args) -> ret` whose body runs with the widest vectors that the processor has.
///
/// The body must be plain arithmetic on slices: what it calls must be `#[inline(always)]` to be compiled with it.
macro_rules! dispatched {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                match $crate::dispatch::level() {
                    // SAFETY: `level` found every feature that the function enables on this processor.
                    $crate::dispatch::Level::Avx512 | $crate::dispatch::Level::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::dispatch::Level::Avx2 | $crate::dispatch::Level::AvxVnni => return unsafe { avx2($($arg),*) },
                    $crate::dispatch::Level::Portable => {}
                }
            }
            portable($($arg),*)
        }
    };
}

pub(crate) use dispatched;

/// The instruction sets that the kernels know, each including those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 and, in vectors of its size, what multiplies 8-bit integers: laptops and desktops without AVX-512.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    #[cfg(test)]
    pub(crate) const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Bf16,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
    ];
}

/// What kernels can be [limited](limit) to.
const LIMITS: &[(&str, Level)] = &[
    ("portable", Level::Portable),
    #[cfg(target_arch = "x86_64")]
    ("avx2", Level::Avx2),
    #[cfg(target_arch = "x86_64")]
    ("avx-vnni", Level::AvxVnni),
];

/// Keeps kernels from instructions beyond those of a name, `portable` or, on x86, `avx2` or `avx-vnni`: to see on any
/// machine what a lesser one does.
///
/// # Errors
/// Any other name. Too late, once a kernel has run, is an error too.
pub fn limit(name: &str) -> Result<(), String> {
    let Some((_, most)) = LIMITS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
        return Err(format!("got `{name}`; allowed here: {}", names.join(", ")));
    };
    LEVEL.set(detected().min(*most)).map_err(|_| "kernels have run already".to_owned())
}

static LEVEL: OnceLock<Level> = OnceLock::new();

/// The widest instruction set that this processor has, up to a [`limit`].
pub(crate) fn level() -> Level {
    #[cfg(test)]
    tests::heed_limit();
    *LEVEL.get_or_init(detected)
}

/// Whether the processor multiplies bf16 itself. Where it does not, bf16 is no faster than f32.
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() >= Level::Avx512Bf16;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the processor multiplies 8-bit integers by four at a time.
#[cfg(target_arch = "aarch64")]
pub(crate) fn multiplies_int8() -> bool {
    level() >= Level::Neon && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// The instructions of x86 that multiply 8-bit integers by four at a time, and add them up.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vnni {
    /// 512 bits at a time: AVX-512F and AVX-512 VNNI.
    Wide,
    /// 256 bits at a time: AVX-VNNI.
    Narrow,
    /// [`Vnni::Narrow`]'s work by the instructions of AVX-512, if these are not to be used in full width: the same
    /// operation, otherwise encoded.
    NarrowOfAvx512,
}

/// Which of them kernels use, if any.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vnni() -> Option<Vnni> {
    let of_avx512 = || is_x86_feature_detected!("avx512vnni");
    match level() {
        Level::Avx512 | Level::Avx512Bf16 => of_avx512().then_some(Vnni::Wide),
        Level::AvxVnni if is_x86_feature_detected!("avxvnni") => Some(Vnni::Narrow),
        Level::AvxVnni if of_avx512() && is_x86_feature_detected!("avx512vl") => Some(Vnni::NarrowOfAvx512),
        _ => None,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Level {
    Level::Portable
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Level {
    Level::Neon
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512 && avx2, avx2) {
        (true, _) if is_x86_feature_detected!("avx512bf16") => Level::Avx512Bf16,
        (true, _) => Level::Avx512,
        (false, true) if is_x86_feature_detected!("avxvnni") => Level::AvxVnni,
        (false, true) => Level::Avx2,
        (false, false) => Level::Portable,
    }
}

#[cfg(test)]
mod tests {
    use super::{LEVEL, LIMITS, limit};
    use std::process::Command;

    const VARIABLE: &str = "PENTIMENTO_INSTRUCTIONS";

    /// For processes of [`every_test_holds_with_fewer_instructions`].
    pub(super) fn heed_limit() {
        if LEVEL.get().is_none()
            && let Ok(name) = std::env::var(VARIABLE)
        {
            // Another test may have come first, with the same limit.
            let _ = limit(&name);
        }
    }

    /// Which instructions are used is decided once in a process, so all tests run once more in others.
    #[test]
    fn every_test_holds_with_fewer_instructions() {
        if std::env::var_os(VARIABLE).is_some() {
            return;
        }
        for (limit, _) in LIMITS {
            let tests = Command::new(std::env::current_exe().unwrap()).env(VARIABLE, limit).output().unwrap();
            assert!(tests.status.success(), "{limit}: {}", String::from_utf8_lossy(&tests.stdout));
        }
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        let allowed = if cfg!(target_arch = "x86_64") { "portable, avx2, avx-vnni" } else { "portable" };
        assert_eq!(limit("sse9").unwrap_err(), format!("got `sse9`; allowed here: {allowed}"));
    }
}

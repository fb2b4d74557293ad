//! A JSON object's fields, one by one, so that an error names the field, what it got and what was expected.
//!
//! Only known fields are kept, and of lists and objects only that they were there: a body cannot grow in memory.

use domain::fault::{ErrorCode, Fault};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Names of unknown fields that are told back, at most.
const UNKNOWN_MAX: usize = 32;
/// Characters of an unknown field's name that are told back, at most.
const UNKNOWN_CHARS_MAX: usize = 64;
/// Characters of a wrong value that are told back, at most.
const SHOWN_CHARS_MAX: usize = 40;

#[derive(Debug)]
pub(crate) struct Fields {
    known: BTreeMap<&'static str, Scalar>,
    pub(crate) unknown: Vec<String>,
}

/// A value as far as any field may want it.
#[derive(Debug, PartialEq)]
enum Scalar {
    Null,
    Flag(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    List,
    Object,
}

/// A whole number, which may still be out of every range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Whole {
    Unsigned(u64),
    Negative(i64),
    /// Of more than 64 bits.
    Beyond(f64),
}

impl Fields {
    /// Reads a body that must be one JSON object; of a field that occurs twice the last one counts.
    pub(crate) fn read(body: &[u8], names: &'static [&'static str]) -> Result<Self, Fault> {
        let malformed = |detail: String| Fault::new(ErrorCode::Malformed, detail);
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(malformed("the body is empty; expected a JSON object".to_owned()));
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let fields = Names(names).deserialize(&mut reader).and_then(|fields| reader.end().map(|()| fields));
        fields.map_err(|error| match error.classify() {
            // The text of such an error repeats the value, which may be anybody's prompt.
            serde_json::error::Category::Data => malformed("the body is not a JSON object".to_owned()),
            _ => malformed(format!("the body is not JSON: {error}")),
        })
    }

    /// A text that a later error may repeat; what is none is for [`Fields::text`] to refuse.
    pub(crate) fn told(&self, names: &[&'static str]) -> Option<String> {
        names.iter().find_map(|name| match self.known.get(name) {
            Some(Scalar::Text(text)) => Some(text.clone()),
            _ => None,
        })
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        match self.known.remove(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(other) => Err(mistyped(name, &other, "text")),
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Fault> {
        match self.known.remove(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Flag(flag)) => Ok(Some(flag)),
            Some(other) => Err(mistyped(name, &other, "true or false")),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<f64>, Fault> {
        match self.known.remove(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Float(number)) => Ok(Some(number)),
            Some(Scalar::Unsigned(number)) => Ok(Some(number as f64)),
            Some(Scalar::Negative(number)) => Ok(Some(number as f64)),
            Some(other) => Err(mistyped(name, &other, "a number")),
        }
    }

    /// A whole number that may be negative; one beyond 64 bits is the outermost, which no field allows.
    pub(crate) fn integer(&mut self, name: &'static str) -> Result<Option<i64>, Fault> {
        match self.whole(name)? {
            None => Ok(None),
            Some(Whole::Negative(number)) => Ok(Some(number)),
            Some(Whole::Unsigned(number)) => Ok(Some(i64::try_from(number).unwrap_or(i64::MAX))),
            Some(Whole::Beyond(number)) => Ok(Some(number as i64)),
        }
    }

    /// `3.0` is a whole number: some clients know no other.
    pub(crate) fn whole(&mut self, name: &'static str) -> Result<Option<Whole>, Fault> {
        match self.known.remove(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Unsigned(number)) => Ok(Some(Whole::Unsigned(number))),
            Some(Scalar::Negative(number)) => Ok(Some(Whole::Negative(number))),
            Some(Scalar::Float(number)) if number.fract() == 0.0 && (0.0..1.8e19).contains(&number) => {
                Ok(Some(Whole::Unsigned(number as u64)))
            }
            Some(Scalar::Float(number)) if number.fract() == 0.0 && (-9.2e18..0.0).contains(&number) => {
                Ok(Some(Whole::Negative(number as i64)))
            }
            Some(Scalar::Float(number)) if number.fract() == 0.0 => Ok(Some(Whole::Beyond(number))),
            Some(other) => Err(mistyped(name, &other, "a whole number")),
        }
    }
}

fn mistyped(name: &str, got: &Scalar, expected: &str) -> Fault {
    Fault::new(ErrorCode::Malformed, format!("{name}: got {got}; expected {expected}"))
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Unsigned(number) => write!(f, "the number {number}"),
            Self::Negative(number) => write!(f, "the number {number}"),
            Self::Float(number) => write!(f, "the number {number:?}"),
            Self::Text(text) if text.chars().count() <= SHOWN_CHARS_MAX => write!(f, "the text {text:?}"),
            Self::Text(text) => write!(f, "a text of {} characters", text.chars().count()),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

struct Names(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Names {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields { known: BTreeMap::new(), unknown: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            if let Some(known) = self.0.iter().find(|known| **known == name) {
                fields.known.insert(known, map.next_value_seed(ScalarSeed)?);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            let shown: String = name.chars().filter(|c| !c.is_control()).take(UNKNOWN_CHARS_MAX).collect();
            if fields.unknown.len() < UNKNOWN_MAX && !fields.unknown.contains(&shown) {
                fields.unknown.push(shown);
            }
        }
        Ok(fields)
    }
}

struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(u64::try_from(value).map_or(Scalar::Negative(value), Scalar::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Scalar, E> {
        Ok(Scalar::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["a", "b"];

    fn read(body: &str) -> Fields {
        Fields::read(body.as_bytes(), NAMES).unwrap()
    }

    #[track_caller]
    fn refused(body: &[u8], expect: &str) {
        let fault = Fields::read(body, NAMES).unwrap_err();
        assert_eq!(fault.code, ErrorCode::Malformed);
        assert!(fault.detail.contains(expect), "{}", fault.detail);
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_without_repeating_it() {
        refused(b"", "empty");
        refused(b" \n", "empty");
        refused(b"[1]", "not a JSON object");
        refused(b"\"a secret prompt\"", "the body is not a JSON object");
        refused(b"{\"a\": 1", "not JSON");
        refused(b"{\"a\": 1} x", "not JSON");
        refused(b"{\"a\": \"\xff\"}", "not JSON");
        refused(b"{\"a\": \"\\ud800\"}", "not JSON");
        refused(b"{\"a\": 1e999}", "not JSON");
        refused("[".repeat(100_000).as_bytes(), "");
    }

    #[test]
    fn numbers_keep_their_kind() {
        assert_eq!(read(r#"{"a": 3.0}"#).whole("a").unwrap(), Some(Whole::Unsigned(3)));
        assert_eq!(read(r#"{"a": -3}"#).whole("a").unwrap(), Some(Whole::Negative(-3)));
        assert_eq!(read(r#"{"a": 18446744073709551615}"#).whole("a").unwrap(), Some(Whole::Unsigned(u64::MAX)));
        assert_eq!(read(r#"{"a": 3}"#).number("a").unwrap(), Some(3.0));
        assert_eq!(read(r#"{"a": null}"#).number("a").unwrap(), None);
        let error = read(r#"{"a": 1.5}"#).whole("a").unwrap_err();
        assert_eq!(error.detail, "a: got the number 1.5; expected a whole number");
        let error = read(r#"{"a": "4"}"#).number("a").unwrap_err();
        assert_eq!(error.detail, "a: got the text \"4\"; expected a number");
        // Beyond 64 bits is a matter of what the field allows, not of its type.
        assert_eq!(read(r#"{"a": 1e300}"#).whole("a").unwrap(), Some(Whole::Beyond(1e300)));
        assert_eq!(read(r#"{"a": -1e300}"#).integer("a").unwrap(), Some(i64::MIN));
    }

    #[test]
    fn lists_objects_and_unknown_fields_leave_only_their_names() {
        let deep = format!("{{\"a\": {}{}, \"c\": {{}}, \"c\": 1}}", "[".repeat(50), "]".repeat(50));
        let mut fields = read(&deep);
        assert_eq!(fields.text("a").unwrap_err().detail, "a: got a list; expected text");
        assert_eq!(fields.unknown, ["c"]);
        let many: Vec<String> = (0..1000).map(|n| format!("\"x{n}\": 0")).collect();
        assert_eq!(read(&format!("{{{}}}", many.join(","))).unknown.len(), UNKNOWN_MAX);
    }

    #[test]
    fn the_last_of_two_counts() {
        assert_eq!(read(r#"{"b": 1, "b": true}"#).flag("b").unwrap(), Some(true));
    }
}

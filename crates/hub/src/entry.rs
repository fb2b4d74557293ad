//! One `[[entry]]` of a data file, read field by field so that an error names the entry, the field and what is allowed.

use crate::error::HubError;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// The entries of `[[kind]]`, in order. Any other key at the top of the file is an error.
pub(crate) fn entries(file: &str, text: &str, kind: &'static str) -> Result<Vec<Entry>, HubError> {
    let syntax = |problem: String| HubError::Syntax { file: file.to_owned(), problem };
    let table: Table = text.parse().map_err(|error: toml::de::Error| syntax(one_line(&error)))?;
    if let Some(other) = table.keys().find(|key| *key != kind) {
        return Err(syntax(format!("unknown key {other}; allowed: [[{kind}]] entries")));
    }
    let Some(value) = table.get(kind) else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| syntax(format!("{kind} is not a list; write [[{kind}]]")))?;
    list.iter().enumerate().map(|(idx, value)| Entry::new(file, kind, idx, value)).collect()
}

pub(crate) struct Entry {
    file: String,
    name: String,
    table: Table,
    asked: BTreeSet<&'static str>,
}

impl Entry {
    fn new(file: &str, kind: &str, idx: usize, value: &Value) -> Result<Self, HubError> {
        let table = value.as_table().cloned().ok_or_else(|| HubError::Syntax {
            file: file.to_owned(),
            problem: format!("entry {} of {kind} is not a table", idx + 1),
        })?;
        let id = table.get("id").and_then(Value::as_str);
        let name = id.map_or_else(|| format!("{kind} {}", idx + 1), |id| format!("{kind} {} ({id})", idx + 1));
        Ok(Self { file: file.to_owned(), name, table, asked: BTreeSet::new() })
    }

    pub(crate) fn wrong(&self, field: &str, problem: impl ToString) -> HubError {
        HubError::Field {
            file: self.file.clone(),
            entry: self.name.clone(),
            field: field.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, HubError> {
        self.text_if_any(field)?.ok_or_else(|| self.missing(field, "text"))
    }

    pub(crate) fn text_if_any(&mut self, field: &'static str) -> Result<Option<String>, HubError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
            Some(other) => Err(self.mistyped(field, &other, "text that is not empty")),
        }
    }

    pub(crate) fn texts(&mut self, field: &'static str) -> Result<Vec<String>, HubError> {
        self.texts_if_any(field)?.ok_or_else(|| self.missing(field, "a list of texts"))
    }

    /// A list that is there has at least one member.
    pub(crate) fn texts_if_any(&mut self, field: &'static str) -> Result<Option<Vec<String>>, HubError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let members = value.as_array().filter(|list| !list.is_empty());
        let texts = members.and_then(|list| list.iter().map(|member| member.as_str().map(str::to_owned)).collect());
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => Err(self.mistyped(field, &value, "a list of texts that is not empty")),
        }
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, HubError> {
        match self.value(field) {
            Some(Value::Boolean(flag)) => Ok(flag),
            Some(other) => Err(self.mistyped(field, &other, "true or false")),
            None => Err(self.missing(field, "true or false")),
        }
    }

    pub(crate) fn number(&mut self, field: &'static str) -> Result<f64, HubError> {
        match self.value(field) {
            Some(Value::Float(number)) => Ok(number),
            Some(Value::Integer(number)) => Ok(number as f64),
            Some(other) => Err(self.mistyped(field, &other, "a number")),
            None => Err(self.missing(field, "a number")),
        }
    }

    pub(crate) fn whole(&mut self, field: &'static str) -> Result<i64, HubError> {
        self.whole_if_any(field)?.ok_or_else(|| self.missing(field, "a whole number"))
    }

    pub(crate) fn whole_if_any(&mut self, field: &'static str) -> Result<Option<i64>, HubError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(other) => Err(self.mistyped(field, &other, "a whole number")),
        }
    }

    /// A misspelled field would otherwise be a default that nobody asked for.
    pub(crate) fn nothing_else(&self) -> Result<(), HubError> {
        let Some(extra) = self.table.keys().find(|key| !self.asked.contains(key.as_str())) else { return Ok(()) };
        let known: Vec<&str> = self.asked.iter().copied().collect();
        Err(self.wrong(extra, format!("unknown field; known are {}", known.join(", "))))
    }

    fn value(&mut self, field: &'static str) -> Option<Value> {
        self.asked.insert(field);
        self.table.get(field).cloned()
    }

    fn missing(&self, field: &str, allowed: &str) -> HubError {
        self.wrong(field, format!("missing; allowed: {allowed}"))
    }

    fn mistyped(&self, field: &str, got: &Value, allowed: &str) -> HubError {
        self.wrong(field, format!("got {got}; allowed: {allowed}"))
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

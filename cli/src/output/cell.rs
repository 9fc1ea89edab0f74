//! One value of a row, with the digits that the server sent: a number that is parsed and printed again
//! may end in another digit.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use serde_json::value::RawValue;

/// A value as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(Box<str>);

impl Cell {
    /// True if it is null.
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }

    /// The value without the quotes of JSON.
    pub fn text(&self) -> String {
        if self.is_null() {
            return "NULL".to_owned();
        }
        self.as_string().unwrap_or_else(|| self.0.to_string())
    }

    /// The text, if it is one.
    pub fn as_string(&self) -> Option<String> {
        if self.0.starts_with('"') { serde_json::from_str(&self.0).ok() } else { None }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(Value::from(text))
    }
}

/// JSON.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only from JSON text: a [`Value`] has lost the digits already.
impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into())).map_err(de::Error::custom)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

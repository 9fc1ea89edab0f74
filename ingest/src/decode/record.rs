//! One JSON object → the values of one row.

use std::collections::HashMap;

use schemas::{SqlType, StreamDef};

use super::cursor::{Broken, Cursor};
use super::value::{Misfit, Value, unescape, value};

/// Keys whose order is remembered from one record to the next.
const EXPECTED_KEYS_MAX: usize = 256;

/// What is wrong with a record. Columns by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault<'a> {
    Broken(Broken),
    Type { column: usize, found: &'a str },
    Missing { column: usize },
}

impl From<Broken> for Fault<'_> {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

struct Column {
    sql_type: SqlType,
    nullable: bool,
}

/// The key that stood in this place of the record before, in quotes, and its column, if it has one.
#[derive(Default)]
struct Expected {
    quoted: Vec<u8>,
    column: Option<usize>,
}

/// Parses record after record. Records of one sender mostly have their keys in one order, so each
/// key is first compared with what stood in its place the last time.
pub(crate) struct RecordParser<'a> {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    expected: Vec<Expected>,
    depth_max: usize,
    values: Vec<Value<'a>>,
}

impl<'a> RecordParser<'a> {
    pub(crate) fn new(stream: &StreamDef, depth_max: usize) -> Self {
        let column = |c: &schemas::column::ColumnDef| Column { sql_type: c.sql_type, nullable: c.nullable };
        Self {
            columns: stream.columns.iter().map(column).collect(),
            by_name: stream.columns.iter().map(|c| c.name.clone()).zip(0..).collect(),
            expected: Vec::new(),
            depth_max,
            values: vec![Value::Null; stream.columns.len()],
        }
    }

    /// The values of a record, one per column, to be taken out before the next record.
    ///
    /// Unknown keys are ignored; of a key that stands there twice the last value counts.
    pub(crate) fn parse(&mut self, record: &'a str) -> Result<&mut [Value<'a>], Fault<'a>> {
        self.values.fill(Value::Null);
        let mut cursor = Cursor::new(record);
        cursor.space();
        if !cursor.take(b'{') {
            return Ok(cursor.broken("a JSON object")?);
        }
        if self.depth_max == 0 {
            return Err(Fault::Broken(Broken::TooDeep));
        }
        self.members(&mut cursor)?;
        cursor.space();
        if !cursor.is_done() {
            return Ok(cursor.broken("the end of the record")?);
        }
        self.check_missing()?;
        Ok(&mut self.values)
    }

    fn members(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault<'a>> {
        cursor.space();
        if cursor.take(b'}') {
            return Ok(());
        }
        for place in 0.. {
            let column = self.key(cursor, place)?;
            cursor.colon()?;
            match column {
                Some(column) => self.member(cursor, column)?,
                None => cursor.skip_value(1, self.depth_max)?,
            }
            cursor.space();
            if cursor.take(b'}') {
                break;
            }
            if !cursor.take(b',') {
                return Ok(cursor.broken("\",\" or \"}\"")?);
            }
            cursor.space();
        }
        Ok(())
    }

    #[inline]
    fn member(&mut self, cursor: &mut Cursor<'a>, column: usize) -> Result<(), Fault<'a>> {
        match value(cursor, self.columns[column].sql_type, self.depth_max) {
            Ok(found) => self.values[column] = found,
            Err(Misfit::Broken(broken)) => return Err(Fault::Broken(broken)),
            Err(Misfit::Type(found)) => return Err(Fault::Type { column, found }),
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self, cursor: &mut Cursor<'a>, place: usize) -> Result<Option<usize>, Broken> {
        if let Some(expected) = self.expected.get(place)
            && cursor.take_all(&expected.quoted)
        {
            return Ok(expected.column);
        }
        let start = cursor.at();
        let raw = cursor.string()?;
        let name = unescape(&raw)?;
        let column = self.by_name.get(name.as_ref()).copied();
        if place < EXPECTED_KEYS_MAX {
            if self.expected.len() <= place {
                self.expected.resize_with(place + 1, Expected::default);
            }
            let expected = &mut self.expected[place];
            expected.quoted.clear();
            expected.quoted.extend_from_slice(cursor.since(start).as_bytes());
            expected.column = column;
        }
        Ok(column)
    }

    fn check_missing(&self) -> Result<(), Fault<'a>> {
        let missing = |(column, value): (&Column, &Value<'_>)| !column.nullable && matches!(value, Value::Null);
        match self.columns.iter().zip(&self.values).position(missing) {
            Some(column) => Err(Fault::Missing { column }),
            None => Ok(()),
        }
    }
}

//! `SHOW CREATE`: a text that makes the same stream, view, table or sink again.

use std::fmt::Write as _;

use sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};

use crate::column::ColumnDef;
use crate::frozen::Frozen;
use crate::sink::{SinkDef, SinkTarget, without_password};
use crate::statement::interval;
use crate::stream::{LatePolicy, OnBadData, StreamDef};
use crate::table::{PostgresRead, TableSource, Validity};
use crate::transport::{LogKind, Transport};
use crate::union::UnionDef;
use crate::view::{Refresh, TableDef, ViewDef};

/// Words that begin an element of a column list.
const LIST_WORDS: [&str; 6] = ["primary", "watermark", "constraint", "foreign", "unique", "check"];

/// A name as SQL: in quotes where it would be folded or read as a keyword.
pub fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let first_is_plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let is_plain = first_is_plain && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain && !is_keyword(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_keyword(name: &str) -> bool {
    let found = ALL_KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()).ok();
    let keyword = found.and_then(|index| ALL_KEYWORDS_INDEX.get(index));
    LIST_WORDS.contains(&name)
        || keyword.is_some_and(|k| RESERVED_FOR_COLUMN_ALIAS.contains(k) || RESERVED_FOR_TABLE_ALIAS.contains(k))
}

/// A string literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn column(column: &ColumnDef) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{not_null}", quoted(&column.name), column.sql_type.sql())
}

/// `CREATE STREAM …` with every option written out.
pub fn stream_sql(stream: &StreamDef) -> String {
    let looked_up = |declared: &ColumnDef| -> String {
        let frozen = stream.transport.frozen.as_ref();
        let source = frozen.and_then(|frozen| Some((frozen, frozen.source_of(&declared.name)?)));
        source.map(|(frozen, source)| freeze(frozen, source)).unwrap_or_default()
    };
    let mut lines: Vec<String> =
        stream.declared_columns().map(|declared| column(declared) + &looked_up(declared)).collect();
    if !stream.primary_key.is_empty() {
        let key: Vec<String> = stream.primary_key.iter().map(|name| quoted(name)).collect();
        lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    if let Some(time) = stream.time_column.as_deref().map(quoted) {
        let delay = interval::show(stream.watermark_delay_us);
        lines.push(match stream.watermark_delay_us {
            0 => format!("WATERMARK FOR {time} AS {time}"),
            _ => format!("WATERMARK FOR {time} AS {time} - INTERVAL '{delay}'"),
        });
    }
    let on_bad_data = match stream.on_bad_data {
        OnBadData::Quarantine => "quarantine",
        OnBadData::Reject => "reject",
    };
    let time_correction = if stream.corrects_time() { ", time_correction = 'on'" } else { "" };
    format!(
        "CREATE STREAM {} (\n  {}\n) WITH (partitions = {}, dedup_horizon = '{}', late = '{}', \
         on_bad_data = '{on_bad_data}'{time_correction}{})",
        quoted(&stream.name),
        lines.join(",\n  "),
        stream.partitions,
        interval::show(stream.dedup_horizon_us),
        stream.late.as_str(),
        transport(&stream.transport),
    )
}

/// The clause of a column that is looked up.
fn freeze(frozen: &Frozen, source: &str) -> String {
    let Frozen { name, key, table_key, .. } = frozen;
    format!(" FREEZE FROM {} ({}) ON {} = {}", quoted(name), quoted(source), quoted(key), quoted(table_key))
}

/// The options of a stream whose records or whose log are in Kafka; nothing for another one.
fn transport(transport: &Transport) -> String {
    let mut options = String::new();
    if let Some(source) = &transport.source {
        let (topic, format) = (literal(&source.topic), source.format.as_str());
        let _ = write!(options, ", connector = 'kafka', topic = {topic}, format = '{format}'");
    }
    if transport.log == LogKind::Kafka {
        options.push_str(", log = 'kafka'");
    }
    if let Some(brokers) = &transport.brokers {
        let _ = write!(options, ", brokers = {}", literal(brokers));
    }
    options
}

/// `CREATE MATERIALIZED VIEW …` with its schedule written out and its `SELECT` as it was written.
pub fn view_sql(view: &ViewDef) -> String {
    let head = view_head(&view.name, &view.refresh, view.late);
    format!("{head}\nAS {}{}", view.sql, no_data(view.with_no_data))
}

/// The same of a view over `UNION ALL`.
pub fn union_sql(union: &UnionDef) -> String {
    let head = view_head(&union.name, &union.refresh, union.late);
    format!("{head}\nAS {}{}", union.sql, no_data(union.with_no_data))
}

fn view_head(name: &str, refresh: &Refresh, late: Option<LatePolicy>) -> String {
    let refresh = match refresh {
        Refresh::Cron { expression, time_zone } => {
            format!("CRON {} TIME ZONE {}", literal(expression), literal(time_zone))
        }
        Refresh::Every { interval_us } => format!("EVERY INTERVAL '{}'", interval::show(*interval_us)),
        Refresh::Manual => "MANUAL".into(),
        Refresh::Never => "NEVER".into(),
    };
    let options = late.map(|policy| format!("\n  WITH (late = '{}')", policy.as_str())).unwrap_or_default();
    format!("CREATE MATERIALIZED VIEW {}\n  REFRESH {refresh}{options}", quoted(name))
}

fn no_data(with_no_data: bool) -> &'static str {
    if with_no_data { "\nWITH NO DATA" } else { "" }
}

/// `CREATE SINK … FROM …` with every option written out, but for a password: that is known to nobody who has not
/// written it.
pub fn sink_sql(sink: &SinkDef, view: &str) -> String {
    let place = match &sink.target {
        SinkTarget::Stdout => String::new(),
        SinkTarget::File { path } => format!(", path = {}", literal(path)),
        SinkTarget::Webhook { url } => format!(", url = {}", literal(&without_password(url))),
        SinkTarget::Postgres { url, table } => {
            format!(", url = {}, table = {}", literal(&without_password(url)), literal(table))
        }
        SinkTarget::Kafka { topic, brokers } => {
            let brokers = brokers.as_ref().map(|brokers| format!(", brokers = {}", literal(brokers)));
            format!(", topic = {}{}", literal(topic), brokers.unwrap_or_default())
        }
    };
    format!(
        "CREATE SINK {} FROM {} WITH (type = '{}', mode = '{}', every = '{}'{place})",
        quoted(&sink.name),
        quoted(view),
        sink.target.kind(),
        sink.mode.as_str(),
        interval::show(sink.every_us),
    )
}

/// `CREATE TABLE … FROM …` with every option written out, but for secrets in an address.
pub fn table_sql(table: &TableDef) -> String {
    let mut lines: Vec<String> = table.columns.iter().map(column).collect();
    let mut options = format!("join = '{}'", table.join.as_str());
    if let Some(Validity { from, to, key }) = &table.validity {
        if to.is_none() || !key.is_empty() {
            let key: Vec<String> = key.iter().chain([from]).map(|name| quoted(name)).collect();
            lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        let _ = write!(options, ", valid_from = {}", literal(from));
        if let Some(to) = to {
            let _ = write!(options, ", valid_to = {}", literal(to));
        }
    }
    let place = literal(&table.source.place());
    let source = match &table.source {
        TableSource::File(_) => format!("FILE {place}"),
        TableSource::Url { .. } => format!("URL {place}"),
        TableSource::Postgres { read: PostgresRead::Table(name), .. } => {
            format!("POSTGRES {place} TABLE {}", literal(name))
        }
        TableSource::Postgres { read: PostgresRead::Query(sql), .. } => {
            format!("POSTGRES {place} QUERY {}", literal(sql))
        }
    };
    let refresh = table.refresh_us.map(|us| format!("\n  REFRESH EVERY INTERVAL '{}'", interval::show(us)));
    format!(
        "CREATE TABLE {} (\n  {}\n) FROM {source}{}\n  WITH ({options})",
        quoted(&table.name),
        lines.join(",\n  "),
        refresh.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;

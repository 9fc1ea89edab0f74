//! Statements that Bifold does not run, and what to do instead.

use super::cursor::Cursor;
use crate::problem::{Code, Problem};

const INGEST: &str = "send events with POST /v1/streams/{stream}/events or `bifold ingest`";
const CORRECT: &str = "events are never changed: send a new event, or replace the view with CREATE OR REPLACE \
                       MATERIALIZED VIEW";
const SETTINGS: &str = "settings come from flags, the environment and bifold.toml";
const TRANSACTIONS: &str = "leave it out: every statement is carried out by itself, and a query reads one snapshot";
const REPLACE: &str = "use CREATE OR REPLACE MATERIALIZED VIEW, or DROP and CREATE";
const VIEWS: &str = "write CREATE MATERIALIZED VIEW, or WITH name AS (…) in the query";
const TOKENS: &str = "rights come from tokens: `bifold token create`";
const CHANGES: &str = "SELECT from the view as often as you like: it answers with everything until now";
const CONTINUOUS: &str = "write CREATE MATERIALIZED VIEW name AS SELECT …";
const GROWS: &str = "what grows is a CREATE STREAM";
const TOPICS: &str = "write connector = 'kafka', topic = '…' and brokers = '…' in CREATE STREAM … WITH (…)";
const NOTHING: &str = "there is CREATE STREAM, CREATE MATERIALIZED VIEW and CREATE TABLE … FROM FILE, URL or POSTGRES";

/// First words of a statement, the code, and the hint.
const REFUSED: [(&[&str], Code, &str); 56] = [
    (&["INSERT"], Code::Unsupported, INGEST),
    (&["UPSERT"], Code::Unsupported, INGEST),
    (&["UPDATE"], Code::Unsupported, CORRECT),
    (&["DELETE"], Code::Unsupported, CORRECT),
    (&["MERGE"], Code::Unsupported, CORRECT),
    (&["REPLACE"], Code::Unsupported, CORRECT),
    (&["TRUNCATE"], Code::Unsupported, CORRECT),
    (&["COPY"], Code::Forbidden, "COPY stream FROM 'file' reads; use ?format=csv for output"),
    (&["UNLOAD"], Code::Forbidden, "SQL sees no file: use ?format=csv or ?format=arrow for output"),
    (&["CREATE", "EXTERNAL"], Code::Forbidden, "SQL sees no file: load it with CREATE TABLE … FROM FILE '…'"),
    (&["CREATE", "UNBOUNDED"], Code::Forbidden, "what grows is a CREATE STREAM"),
    (&["CREATE", "VIEW"], Code::Unsupported, VIEWS),
    (&["CREATE", "OR", "REPLACE", "VIEW"], Code::Unsupported, VIEWS),
    (&["CREATE", "TEMPORARY"], Code::Unsupported, VIEWS),
    (&["CREATE", "TEMP"], Code::Unsupported, VIEWS),
    (&["CREATE", "INDEX"], Code::Unsupported, "leave it out: batch views are sorted and indexed by their key"),
    (&["CREATE", "UNIQUE"], Code::Unsupported, "leave it out: batch views are sorted and indexed by their key"),
    (&["CREATE", "SCHEMA"], Code::Unsupported, NOTHING),
    (&["CREATE", "DATABASE"], Code::Unsupported, NOTHING),
    (&["CREATE", "FUNCTION"], Code::Unsupported, NOTHING),
    (&["CREATE", "CONTINUOUS"], Code::Unsupported, CONTINUOUS),
    (&["CREATE", "LIVE"], Code::Unsupported, CONTINUOUS),
    (&["CREATE", "WINDOW"], Code::Unsupported, CONTINUOUS),
    (&["CREATE", "DICTIONARY"], Code::Unsupported, "write CREATE TABLE … FROM FILE, URL or POSTGRES, and join it"),
    (&["CREATE", "CONNECTION"], Code::Unsupported, TOPICS),
    (&["CREATE", "SECRET"], Code::Unsupported, TOPICS),
    (
        &["CREATE", "CLUSTER"],
        Code::Unsupported,
        "leave it out: settings come from flags, the environment and bifold.toml",
    ),
    (&["CREATE", "FOREIGN"], Code::Unsupported, GROWS),
    (&["CREATE", "ROLE"], Code::Unsupported, TOKENS),
    (&["CREATE", "USER"], Code::Unsupported, TOKENS),
    (&["SUBSCRIBE"], Code::Unsupported, CHANGES),
    (&["TAIL"], Code::Unsupported, CHANGES),
    (&["PRINT"], Code::Unsupported, CHANGES),
    (&["OPTIMIZE"], Code::Unsupported, "leave it out: files are kept in order by the server"),
    (&["ALTER"], Code::Unsupported, REPLACE),
    (&["SET"], Code::Forbidden, SETTINGS),
    (&["RESET"], Code::Forbidden, SETTINGS),
    (&["USE"], Code::Forbidden, SETTINGS),
    (&["LOAD"], Code::Forbidden, SETTINGS),
    (&["INSTALL"], Code::Forbidden, SETTINGS),
    (&["ATTACH"], Code::Forbidden, SETTINGS),
    (&["DETACH"], Code::Forbidden, SETTINGS),
    (&["GRANT"], Code::Unsupported, TOKENS),
    (&["REVOKE"], Code::Unsupported, TOKENS),
    (&["BEGIN"], Code::Unsupported, TRANSACTIONS),
    (&["START"], Code::Unsupported, TRANSACTIONS),
    (&["COMMIT"], Code::Unsupported, TRANSACTIONS),
    (&["END"], Code::Unsupported, TRANSACTIONS),
    (&["ABORT"], Code::Unsupported, TRANSACTIONS),
    (&["SAVEPOINT"], Code::Unsupported, TRANSACTIONS),
    (&["PREPARE"], Code::Unsupported, "send \"params\" beside \"sql\" in POST /v1/sql"),
    (&["EXECUTE"], Code::Unsupported, "send \"params\" beside \"sql\" in POST /v1/sql"),
    (&["DEALLOCATE"], Code::Unsupported, "send \"params\" beside \"sql\" in POST /v1/sql"),
    (&["VACUUM"], Code::Unsupported, "leave it out: files are kept in order by the server"),
    (&["ANALYZE"], Code::Unsupported, "leave it out, or write EXPLAIN ANALYZE in front of a query"),
    (&["CALL"], Code::Unsupported, NOTHING),
];

/// The refusal of the statement that stands here, if it is a known one.
pub(super) fn statement(cursor: &Cursor<'_, '_>) -> Option<Problem> {
    let (words, code, hint) = REFUSED.iter().find(|(words, _, _)| cursor.is_at(words))?;
    Some(cursor.problem(*code, format!("{} is not run here", words.join(" "))).with_hint(*hint))
}

/// The refusal of a query that would write.
pub(super) fn in_query(what: &str) -> Problem {
    let hint = match what {
        "INSERT" => INGEST,
        "SELECT INTO" => VIEWS,
        "FOR UPDATE" => TRANSACTIONS,
        _ => CORRECT,
    };
    Problem::new(Code::Unsupported, format!("{what} in a query: queries only read")).with_hint(hint)
}

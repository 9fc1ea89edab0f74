//! Every bound in one place, with its unit. Configuration may lower or raise those in [`Limits`].

use serde::{Deserialize, Serialize};

/// Bytes that a request takes besides its body: bounds how many of them are in flight.
pub const REQUEST_BYTES: usize = 16_384;
/// Bytes of answers that are remembered for their `Idempotency-Key`.
pub const REMEMBERED_ANSWERS_BYTES: usize = 16 * 1_048_576;
/// Bytes of frames that one read of a log's files takes into memory, unless one frame is larger.
pub const LOG_READ_BYTES: usize = 16 * 1_048_576;
/// Milliseconds that a log may take for one write before it takes nothing new.
pub const LOG_STALLED_MS: u64 = 5_000;
/// Seconds: no `Retry-After` is longer.
pub const RETRY_AFTER_MAX_S: u64 = 60;
/// Columns of a stream.
pub const COLUMNS_MAX: usize = 1_000;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 63;
/// Rows of a table: they are in memory, and in the join of a view.
pub const TABLE_ROWS_MAX: usize = 10_000_000;
/// Bytes that the server takes from where a table is loaded from.
pub const TABLE_BYTES_MAX: usize = 256 * 1_048_576;
/// Partitions of a stream.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Bytes of an SQL text.
pub const SQL_BYTES_MAX: usize = 1_048_576;
/// Records of one ingest request.
pub const RECORDS_MAX: usize = 1_048_576;
/// Operators in a row in one SQL expression: bounds the depth of its syntax tree, and so the stack.
pub const SQL_CHAIN_MAX: usize = 1_000;
/// Brackets within brackets in an SQL statement.
pub const SQL_NESTING_MAX: usize = 32;
/// Tokens that the SQL parser may look at in one statement. It reads the arguments of a call twice
/// (three times in `CAST` and `CASE`), so calls within calls double the work with each level.
pub const SQL_PARSE_STEPS_MAX: u64 = 4_194_304;
/// Errors that an ingest answer lists.
pub const ERRORS_LISTED_MAX: usize = 100;
/// Differing cells that a certificate lists.
pub const DIFFERENCES_LISTED_MAX: usize = 100;
/// Dead letters that one replay or one list takes.
pub const DEAD_LETTERS_AT_ONCE: usize = 10_000;
/// Rows of a micro-batch that is folded at once (cache, latency: measured in the spike).
pub const MICRO_BATCH_ROWS: usize = 65_536;
/// Rows that a decoder turns into one Arrow batch (larger is slower: measured in the spike).
pub const DECODE_BATCH_ROWS: usize = 8_192;
/// Windows that one event can lie in (`HOP`, `CUMULATE`): so many times its pane is read for an answer.
pub const WINDOWS_PER_EVENT_MAX: i64 = 10_000;
/// Records that a window of so many records can have (`COUNT_WINDOW`).
pub const RECORDS_PER_WINDOW_MAX: i64 = 1_000_000_000_000;
/// Panes that one window can be made up of.
pub const PANES_PER_WINDOW_MAX: i64 = 100_000;
/// Panes that a look-up of one window reads one by one; windows of more are read as a range.
pub const PANES_LOOKED_UP_MAX: i64 = 1_000;
/// Branches of a view over `UNION ALL`: each is a view of its own.
pub const UNION_BRANCHES_MAX: usize = 32;
/// Rows of a data page of a batch view: what one look-up decodes.
pub const VIEW_PAGE_ROWS: usize = 1_000;
/// Rows of a row group of a batch view.
pub const VIEW_ROW_GROUP_ROWS: usize = 131_072;

/// Bytes that a data page of a batch view aims at: pages of wide states have fewer rows.
pub const VIEW_PAGE_BYTES: usize = 262_144;
/// Bytes of decoded pages that an open batch view keeps.
pub const VIEW_PAGE_CACHE_BYTES: usize = 32 * 1_048_576;

/// Values that one cell of an aggregate keeps which keeps values: `count(DISTINCT x)`, `median_exact`, lists,
/// ranks. A constant, because it is a part of what a state means: two nodes with other bounds would make
/// other states of the same records.
pub const CELL_VALUES_MAX: usize = 65_536;
/// Bytes of those values.
pub const CELL_VALUE_BYTES_MAX: usize = 1_048_576;

/// Readers of changes at a time, sinks included.
pub const CHANGE_READERS_MAX: usize = 256;
/// Whole views that are read for them at a time: each may use the memory of a query.
pub const CHANGE_SNAPSHOTS_MAX: usize = 4;
/// Cells that one step of a reader looks at; one that is further behind compares whole views, or gets the view anew.
pub const CHANGE_STEP_CELLS_MAX: usize = 262_144;
/// Rows of a view that is compared as a whole; a larger one is handed over anew.
pub const CHANGE_COMPARED_ROWS_MAX: usize = 1_000_000;
/// Rows that differ in such a comparison.
pub const CHANGE_DIFFERING_ROWS_MAX: usize = 100_000;
/// Rows that are not final yet, of a reader in mode `append`.
pub const CHANGE_OPEN_ROWS_MAX: usize = 1_000_000;

/// Bounds that configuration may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body, after decompression.
    pub body_bytes_max: usize,
    /// Bytes of one record.
    pub record_bytes_max: usize,
    /// Nesting of one record.
    pub record_depth_max: usize,
    /// Bytes of bodies, and of the rows made of them, that are being decoded or wait for the log, over all requests.
    pub ingest_bytes_in_flight_max: usize,
    /// Milliseconds that a request waits for the log; what became of its events is then not known to it.
    pub ingest_timeout_ms: u64,
    /// Bytes of records, per stream, that are not in the master or in no checkpoint yet: more are refused.
    pub log_backlog_bytes_max: usize,
    /// Ids remembered for de-duplication, per stream: on disk 24 bytes each, and 10 bits of memory.
    pub dedup_ids_max: usize,
    /// Of those, ids that are in memory, about 40 bytes each.
    pub dedup_ids_in_memory_max: usize,
    /// Bytes of recent records kept in memory for readers of the log, per stream.
    pub log_tail_bytes_max: usize,
    /// Bytes of recent records kept in memory, over all logs: they share it alike.
    pub log_tails_bytes_max: usize,
    /// Bytes of dead letters on disk, per stream: requests with more bad records are refused.
    pub dead_letters_bytes_max: usize,
    /// Bytes of a log segment before the next one is begun.
    pub log_segment_bytes: usize,
    /// Bytes of states that the speed layer holds before it checkpoints early.
    pub speed_state_bytes_max: usize,
    /// Bytes of states in memory, per stream, that are in a checkpoint and in no batch view yet: more events are refused.
    pub speed_chain_bytes_max: usize,
    /// Milliseconds between checkpoints.
    pub checkpoint_interval_ms: u64,
    /// Bytes of an open range before it is landed.
    pub landing_bytes: usize,
    /// Streams that have an open range in memory to land it; the others wait.
    pub landings_at_once: usize,
    /// Milliseconds before an open range is landed, however small.
    pub landing_interval_ms: u64,
    /// Bytes that a batch run may use before it spills.
    pub run_memory_bytes: usize,
    /// Runs that go on at the same time; the others wait.
    pub runs_at_once: usize,
    /// Batch views kept per view, the current one included (at least 2).
    pub runs_kept: usize,
    /// Bytes that a query may use.
    pub query_memory_bytes: usize,
    /// Bytes that all queries together may use.
    pub queries_memory_bytes: usize,
    /// Milliseconds that a query may take.
    pub query_timeout_ms: u64,
    /// Rows that a query returns unless it asks for fewer.
    pub query_rows_max: usize,
    /// Connections at the same time; more wait until one of them ends.
    pub connections_at_once: usize,
    /// Queries at the same time; more get 429.
    pub queries_at_once: usize,
    /// Milliseconds that a corrected event time may lie after the time of its arrival; later ones are clamped.
    pub event_time_ahead_max_ms: u64,
    /// Milliseconds that the log is kept, if nothing needs it longer.
    pub log_retention_ms: u64,
    /// Bytes of a remote store's immutable objects that are kept on the local disk; 0 keeps none.
    pub store_cache_bytes_max: u64,
    /// Milliseconds between two looks of a node that only answers queries at what is new in the store.
    pub store_refresh_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1_048_576;
        Self {
            body_bytes_max: 64 * MIB,
            record_bytes_max: MIB,
            record_depth_max: 64,
            ingest_bytes_in_flight_max: 256 * MIB,
            ingest_timeout_ms: 30_000,
            log_backlog_bytes_max: 8_192 * MIB,
            dedup_ids_max: 1_073_741_824,
            dedup_ids_in_memory_max: 8_388_608,
            // more than a landing is made of, so that it finds its records in memory
            log_tail_bytes_max: 144 * MIB,
            log_tails_bytes_max: 1_024 * MIB,
            dead_letters_bytes_max: 4_096 * MIB,
            log_segment_bytes: 128 * MIB,
            speed_state_bytes_max: 512 * MIB,
            speed_chain_bytes_max: 4_096 * MIB,
            checkpoint_interval_ms: 5_000,
            landing_bytes: 128 * MIB,
            landings_at_once: 2,
            landing_interval_ms: 60_000,
            run_memory_bytes: 2_048 * MIB,
            runs_at_once: 1,
            runs_kept: 2,
            query_memory_bytes: 1_024 * MIB,
            queries_memory_bytes: 4_096 * MIB,
            query_timeout_ms: 60_000,
            query_rows_max: 100_000,
            connections_at_once: 1_024,
            queries_at_once: 64,
            event_time_ahead_max_ms: 300_000,
            log_retention_ms: 7 * 24 * 3_600_000,
            store_cache_bytes_max: 4 * 1_024 * MIB as u64,
            store_refresh_ms: 1_000,
        }
    }
}

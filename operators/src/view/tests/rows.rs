//! `UNNEST`, and views without an aggregate.

use arrow::array::{AsArray, ListArray, ListBuilder, StringBuilder};
use arrow::datatypes::{Int32Type, Int64Type};
use schemas::ItemType;

use super::*;
use crate::evidence::position_hash;

/// `k`, `n`, `x`, `tags`, `at`.
fn posts() -> StreamDef {
    let mut stream = stream();
    let tags = ColumnDef { name: "tags".into(), sql_type: SqlType::Array(ItemType::Text), nullable: true };
    stream.columns.insert(3, tags);
    stream
}

fn compile_posts(sql: &str, late: LatePolicy) -> Result<Arc<View>, Problem> {
    let tables = [table(1, &[("a", "one"), ("b", "two"), ("b", "three")])];
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql, position, stream: &posts(), tables: &tables, late })
}

/// Tags of record `i`: none at all, no list, a null among them, one twice.
fn tags_of(i: i64) -> Option<Vec<Option<&'static str>>> {
    match i % 5 {
        0 => Some(vec![]),
        1 => None,
        2 => Some(vec![Some("rust"), Some("rust"), None]),
        3 => Some(vec![Some("sql")]),
        _ => Some(vec![Some("a tag that is longer than a view"), Some("rust")]),
    }
}

fn posts_rows(from: i64, to: i64) -> RecordBatch {
    let plain = rows(from, to);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for i in from..to {
        match tags_of(i) {
            Some(tags) => lists.append_value(tags),
            None => lists.append_null(),
        }
    }
    let lists: ListArray = lists.finish();
    let mut columns = plain.columns().to_vec();
    columns.insert(3, Arc::new(lists));
    RecordBatch::try_new(posts().log_schema(), columns).unwrap()
}

fn fold(view: &Arc<View>, piece: i64, reversed: bool) -> (RecordBatch, LedgerCounts) {
    let (mut parts, mut counts) = (vec![], LedgerCounts::default());
    let mut folder = Folder::new(view).unwrap();
    for from in (0..300).step_by(piece as usize) {
        counts.add(&folder.fold(1, from as u64, &posts_rows(from, (from + piece).min(300))).unwrap());
        if from % 3 == 0 {
            parts.extend(folder.take().unwrap());
        }
    }
    parts.extend(folder.take().unwrap());
    if reversed {
        parts.reverse();
    }
    (states::merge(view, &parts).unwrap(), counts)
}

const SPELLINGS: [&str; 6] = [
    "SELECT tag, count(*) AS c FROM (SELECT unnest(tags) AS tag FROM s) AS q GROUP BY tag",
    "SELECT unnest(tags) AS tag, count(*) AS c FROM s GROUP BY 1",
    "SELECT tag, count(*) AS c FROM s CROSS JOIN UNNEST(s.tags) AS t(tag) GROUP BY tag",
    "SELECT t.tag, count(*) AS c FROM s, UNNEST(tags) AS t(tag) GROUP BY t.tag",
    "SELECT t.tag, count(*) AS c FROM s JOIN LATERAL unnest(s.tags) AS t(tag) ON true GROUP BY t.tag",
    "SELECT tag, count(*) AS c FROM s CROSS JOIN LATERAL (SELECT unnest(s.tags) AS tag) AS t GROUP BY tag",
];

/// 60 records each with two times `rust`, one null, one `sql`, one long tag and `rust`.
#[rstest]
fn hashtags_are_counted_in_every_spelling(#[values(0, 1, 2, 3, 4, 5)] spelling: usize) {
    let view = compile_posts(SPELLINGS[spelling], LatePolicy::Include).unwrap_or_else(|e| panic!("{}", e.text()));
    let (states, counts) = fold(&view, 300, false);
    // records without an item reach no cell
    assert_eq!((counts.records, counts.counted, counts.filtered), (300, 180, 120));
    let mut cells = crate::cells::CellTable::new(&view).unwrap();
    cells.merge(&states).unwrap();
    let answer = cells.answer().unwrap();
    let tags = answer.column(0).as_string_view();
    let mut found: Vec<(Option<&str>, i64)> = tags
        .iter()
        .zip(answer.column(2).as_primitive::<Int64Type>().values())
        .map(|(tag, count)| (tag, *count))
        .collect();
    found.sort_unstable();
    let expected = [(None, 60), (Some("a tag that is longer than a view"), 60), (Some("rust"), 180), (Some("sql"), 60)];
    assert_eq!(found, expected);
}

/// The evidence counts rows: a record that is twice in a cell is counted there twice, with its hash.
#[test]
fn a_record_with_two_rows_in_a_cell_is_evidence_twice() {
    let view = compile_posts(SPELLINGS[2], LatePolicy::Include).unwrap();
    let mut folder = Folder::new(&view).unwrap();
    folder.fold(1, 2, &posts_rows(2, 3)).unwrap();
    let states = states::sort(&view, &folder.take().unwrap().unwrap()).unwrap();
    let number = |name: &str| states.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    let (hi, lo) = position_hash(1, 2);
    // the null first, then `rust`
    assert_eq!(number("_n"), [1, 2]);
    assert_eq!(number("_fp_hi"), [hi as i64, hi.wrapping_mul(2) as i64]);
    assert_eq!(number("_fp_lo"), [lo as i64, lo.wrapping_mul(2) as i64]);
}

const VIEWS: [&str; 11] = [
    "SELECT tag, count(*) AS c, sum(n) AS n, array_agg(k ORDER BY n) AS l FROM s CROSS JOIN UNNEST(s.tags) AS t(tag) GROUP BY tag",
    "SELECT tag, window_end, count(*) AS c FROM HOP((SELECT *, unnest(tags) AS tag FROM s), at, INTERVAL '8 seconds', INTERVAL '1 minute') GROUP BY tag, window_end",
    "SELECT tag, window_start, count(*) AS c FROM SESSION((SELECT unnest(tags) AS tag, at FROM s), tag, at, INTERVAL '3 seconds') GROUP BY tag, window_start",
    "SELECT label, tag, count(*) AS c FROM s JOIN t ON s.k = t.code, UNNEST(s.tags) AS u(tag) WHERE tag <> 'sql' GROUP BY label, tag",
    "SELECT unnest(tags) AS tag, unnest(ARRAY[1, 2]) AS place, count(*) AS c FROM s GROUP BY 1, 2",
    "SELECT k, n * 2 AS twice, x, tags, at FROM s WHERE n > 10",
    "SELECT * FROM s",
    "SELECT k, tag, cardinality(tags) AS tags FROM s CROSS JOIN UNNEST(s.tags) AS u(tag) WHERE n IS NOT NULL",
    "SELECT s.k, label, unnest(tags) AS tag FROM s LEFT JOIN t ON s.k = t.code",
    "SELECT k, window_start, n FROM TUMBLE(s, at, INTERVAL '10 seconds') ORDER BY n DESC LIMIT 5",
    "SELECT x, date_trunc('minute', at) AS minute, upper(k) AS u FROM (SELECT * FROM s WHERE k <> 'c') AS q",
];

#[rstest]
fn pieces_of_arrays_and_rows_give_the_same_bytes(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] view: usize,
    #[values(LatePolicy::Include, LatePolicy::Drop, LatePolicy::Only)] late: LatePolicy,
) {
    let view = compile_posts(VIEWS[view], late).unwrap_or_else(|e| panic!("{}", e.text()));
    let (whole, whole_counts) = fold(&view, 300, false);
    assert_eq!((whole_counts.records, whole_counts.balance()), (300, 0), "{whole_counts:?}");
    for (piece, reversed) in [(1, false), (7, true), (64, false)] {
        let (states, counts) = fold(&view, piece, reversed);
        assert_eq!(states.columns(), whole.columns(), "pieces of {piece}");
        assert_eq!(counts, whole_counts, "pieces of {piece}");
    }
}

/// What a view of rows leaves out is what the one beside it has: together they are all rows, under the same names.
#[rstest]
fn rows_that_are_left_out_are_on_the_side(#[values(5, 7, 8, 9, 10)] view: usize) {
    let views = [LatePolicy::Include, LatePolicy::Side, LatePolicy::Only]
        .map(|late| compile_posts(VIEWS[view], late).unwrap_or_else(|e| panic!("{}", e.text())));
    let [(all, _), (kept, left_out), (side, counted)] = views.each_ref().map(|view| fold(view, 300, false));
    assert!(kept.num_rows() > 0 && side.num_rows() > 0);
    assert_eq!(kept.num_rows() + side.num_rows(), all.num_rows());
    assert_eq!((left_out.late, counted.late), (counted.counted, 0));
    assert_eq!(views[0].output_schema(), views[2].output_schema());
}

/// The same of views with an aggregate: also items of one record that are alike are each a row on the side.
#[rstest]
fn items_that_are_left_out_are_each_on_the_side(
    #[values(
        "SELECT tag, count(*) AS c FROM s CROSS JOIN UNNEST(s.tags) AS t(tag) GROUP BY tag",
        "SELECT unnest(tags) AS tag, date_trunc('minute', at) AS m, count(*) AS c FROM s GROUP BY 1, 2",
        "SELECT tag, window_end, count(*) AS c FROM HOP((SELECT *, unnest(tags) AS tag FROM s), at, INTERVAL '8 seconds', INTERVAL '1 minute') GROUP BY tag, window_end",
        "SELECT label, tag, count(*) AS c FROM s JOIN t ON s.k = t.code, UNNEST(s.tags) AS u(tag) WHERE tag <> 'sql' GROUP BY label, tag"
    )]
    sql: &str,
) {
    let folded = |late| {
        let view = compile_posts(sql, late).unwrap_or_else(|e| panic!("{}", e.text()));
        let (states, counts) = fold(&view, 300, false);
        let counted = states.column_by_name("_n").unwrap().as_primitive::<Int64Type>().values().to_vec();
        (counted, counts, view)
    };
    let [(all, ..), (kept, left_out, _), (side, counts, view)] =
        [LatePolicy::Include, LatePolicy::Side, LatePolicy::Only].map(folded);
    assert!(!side.is_empty() && side.iter().all(|rows| *rows == 1), "{side:?}");
    assert_eq!(kept.iter().sum::<i64>() + side.len() as i64, all.iter().sum::<i64>());
    assert_eq!((left_out.late, counts.late), (counts.counted, 0));
    assert!(view.output_schema().column_with_name("_ordinal").is_some(), "what tells the rows apart is shown");
    assert!(!view.is_of_rows());
}

/// A new version of a table changes any row, and a row without a group is in no window of its own: neither is ever
/// final. The late events beside a view are those of the stream, whatever the table says.
#[test]
fn rows_and_tables_that_change_are_never_final() {
    let sql = "SELECT label, window_start, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 minute') AS s \
               JOIN t ON s.k = t.code GROUP BY label, window_start";
    let view = |late, is_late| {
        let table = StaticTable { is_late, ..table(1, &[("a", "one"), ("b", "two")]) };
        compile_with(sql, late, &[table]).unwrap_or_else(|e| panic!("{}", e.text()))
    };
    assert!(view(LatePolicy::Include, false).has_final_windows());
    assert!(!view(LatePolicy::Include, true).has_final_windows());
    assert!(!compile("SELECT k, window_start FROM TUMBLE(s, at, INTERVAL '1 minute')").has_final_windows());
    let has_label = |view: &View| view.output_schema().column_with_name("label").is_some();
    assert!(has_label(&view(LatePolicy::Only, false)));
    assert!(!has_label(&view(LatePolicy::Only, true)) && view(LatePolicy::Only, true).dimension_table().is_none());
}

/// A name of the user's under that of the number of a row is not taken for it.
#[test]
fn the_name_of_the_number_is_refused() {
    for sql in [
        "SELECT n AS _ordinal, k FROM (SELECT * FROM s) AS q",
        "SELECT count(*) AS c FROM (SELECT n AS _ordinal FROM s) AS q GROUP BY _ordinal",
    ] {
        let text = compile_posts(sql, LatePolicy::Include).expect_err("refused").text();
        assert!(text.contains("_ordinal is the name of a column of the platform"), "{text}");
    }
    let view = compile_posts("SELECT n AS _own, k FROM s", LatePolicy::Include).unwrap();
    assert_eq!(view.output_schema().fields().len(), 2, "what is the user's is kept");
}

#[test]
fn rows_are_keyed_by_position_and_number() {
    let view = compile_posts(VIEWS[7], LatePolicy::Include).unwrap();
    assert!(view.is_of_rows() && view.fans_out());
    let (states, counts) = fold(&view, 300, true);
    let numbers = states.column(2).as_primitive::<Int32Type>().values();
    let offsets = states.column(1).as_primitive::<Int64Type>().values();
    let mut expected = vec![];
    // every fifth record has a null `n`; the others of them three, one or two tags
    for i in (0..300).filter(|i| i % 5 != 0) {
        let tags = tags_of(i).map_or(0, |tags| tags.len());
        expected.extend((0..tags).map(|number| (i, number as i32)));
    }
    let found: Vec<(i64, i32)> = offsets.iter().copied().zip(numbers.iter().copied()).collect();
    assert_eq!(found, expected);
    assert_eq!(counts.counted, 180);
    let names: Vec<String> = view.output_schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["k", "tag", "tags"]);
}

/// Windows of so many records are of one partition: rows show of which.
#[test]
fn rows_of_counted_windows_show_their_partition() {
    let view = compile_posts("SELECT _partition AS p, window_start, k FROM COUNT_WINDOW(s, 64)", LatePolicy::Include);
    let (states, counts) = fold(&view.unwrap_or_else(|e| panic!("{}", e.text())), 300, true);
    assert_eq!((states.num_rows(), counts.counted), (300, 300));
    let starts = states.column_by_name("s1").unwrap();
    let start = |row: usize| arrow::util::display::array_value_to_string(starts, row).unwrap();
    assert_eq!([0, 63, 64, 299].map(start), ["0", "0", "64", "256"]);
}

/// What is the platform's own comes into a view only by a name of its own.
#[test]
fn all_columns_are_those_of_the_stream() {
    let names = |sql: &str| -> Vec<String> {
        let view = compile_posts(sql, LatePolicy::Include).unwrap_or_else(|e| panic!("{}", e.text()));
        view.output_schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    assert_eq!(names("SELECT * FROM s"), ["k", "n", "x", "tags", "at"]);
    assert_eq!(names("SELECT *, _offset AS place FROM s"), ["k", "n", "x", "tags", "at", "place"]);
}

/// Two rows of one position can only come from counting a record twice: that is seen, and not hidden.
#[test]
fn a_row_that_is_counted_twice_is_seen() {
    let view = compile_posts(VIEWS[5], LatePolicy::Include).unwrap();
    let (states, _) = fold(&view, 300, false);
    let twice = states::merge(&view, &[states.clone(), states.slice(3, 1)]).unwrap();
    assert_eq!(twice.num_rows(), states.num_rows());
    let counts =
        |states: &RecordBatch| states.column_by_name("_n").unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(counts(&states).iter().max(), Some(&1));
    assert_eq!(counts(&twice)[3], 2);
}

#[rstest]
#[case::two_arrays(
    "SELECT a, b, count(*) AS c FROM s, UNNEST(s.tags) AS t(a), UNNEST(s.tags) AS u(b) GROUP BY a, b",
    "more than one UNNEST"
)]
#[case::left("SELECT tag, count(*) AS c FROM s LEFT JOIN UNNEST(s.tags) AS t(tag) ON true GROUP BY tag", "LATERAL")]
#[case::lateral(
    "SELECT m, count(*) AS c FROM s CROSS JOIN LATERAL (SELECT s.n + 1 AS m WHERE s.n > 1) AS t GROUP BY m",
    "LATERAL"
)]
#[case::above("SELECT unnest(array_agg(k)) AS k FROM s", "UNNEST of what an aggregate gives")]
#[case::not_an_array("SELECT unnest(n) AS n, count(*) AS c FROM s GROUP BY 1", "unnest")]
#[case::hop(
    "SELECT k, window_end FROM HOP(s, at, INTERVAL '1 second', INTERVAL '1 minute')",
    "a record lies in several windows"
)]
#[case::counted("SELECT window_start, k FROM COUNT_WINDOW(s, 4)", "_partition AS partition")]
#[case::counted_star("SELECT * FROM COUNT_WINDOW(s, 4)", "_partition AS partition")]
#[case::sliding("SELECT _partition AS p, window_end FROM COUNT_WINDOW(s, 3, 5)", "lies in several windows")]
#[case::limit_inside("SELECT k FROM (SELECT * FROM s LIMIT 3) AS q JOIN t ON q.k = t.code", "LIMIT")]
#[case::window_function("SELECT k, row_number() OVER (ORDER BY at) AS r FROM s", "window function")]
#[case::now("SELECT k, now() AS at FROM s", "now()")]
#[case::no_column("SELECT _offset FROM s", "no column of its own")]
#[case::no_stream("SELECT label FROM t", "does not read the stream")]
#[case::union("SELECT k FROM s UNION ALL SELECT k FROM s", "UNION")]
fn rows_that_cannot_be_folded_twice_are_refused(#[case] sql: &str, #[case] words: &str) {
    let problem = compile_posts(sql, LatePolicy::Include).expect_err("refused");
    let text = problem.text();
    assert!(text.contains(words), "{text}");
    assert_ne!(problem.code, Code::Internal, "{text}");
}

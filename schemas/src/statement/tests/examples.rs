//! The example streams and views that come with the project.

use rstest::rstest;

use super::super::{CreateView, Statement};
use super::all;
use crate::table::TableSource;

#[rstest]
#[case::commits(include_str!("../../../examples/commits.sql"), &["commits"], &["commits_per_day", "commits_per_hour", "commits_per_week"])]
#[case::shop(
    include_str!("../../../examples/shop.sql"),
    &["clicks"],
    &["revenue_per_minute", "revenue_per_minute_strict", "clicks_per_product", "funnel_per_hour"]
)]
#[case::sensors(
    include_str!("../../../examples/sensors.sql"),
    &["readings"],
    &["mean_temperature", "hottest_of_the_hour", "readings_per_day"]
)]
#[case::hashtags(include_str!("../../../examples/hashtags.sql"), &["hashtags"], &["tags_of_the_minute"])]
#[case::dimension(include_str!("../../../examples/dimension.sql"), &["sales"], &["sales_by_category"])]
#[case::rates(include_str!("../../../examples/rates.sql"), &["sales"], &["turnover_per_day", "sales_by_grade"])]
#[case::posts(include_str!("../../../examples/posts.sql"), &["posts"], &["tags_per_hour", "liked_tags"])]
#[case::sessions(include_str!("../../../examples/sessions.sql"), &["visits"], &["sessions"])]
#[case::watermark(
    include_str!("../../../examples/watermark.sql"),
    &["orders"],
    &["orders_per_hour", "orders_per_hour_final"]
)]
#[case::page_views(include_str!("../../../examples/page_views.sql"), &["page_views"], &["page_views_per_minute", "busy_pages"])]
#[case::ads(include_str!("../../../examples/ads.sql"), &["events"], &["campaign_views"])]
fn example_is_read(#[case] sql: &str, #[case] streams: &[&str], #[case] views: &[&str]) {
    let (mut found_streams, mut found_views) = (vec![], vec![]);
    for placed in all(sql) {
        match placed.statement {
            Statement::CreateStream(stream) => {
                assert!(stream.time_column.is_some() && stream.partitions == 4);
                found_streams.push(stream.name);
            }
            Statement::CreateView(CreateView { name, .. }) => found_views.push(name),
            Statement::CreateTable(table) => {
                assert_eq!(table.source, TableSource::File(format!("{}.csv", table.name)));
            }
            Statement::CreateSink(sink) => assert!(found_views.contains(&sink.view)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (found_streams, found_views),
        (streams.iter().map(ToString::to_string).collect(), views.iter().map(ToString::to_string).collect())
    );
}

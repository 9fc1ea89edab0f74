use rstest::rstest;

use super::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// The true time of the event, of its sending, of its arrival.
const EVENT: i64 = 1_000 * HOUR;
const SENT: i64 = EVENT + 90 * SECOND;
const RECEIVED: i64 = SENT + SECOND / 2;

/// What a client says whose clock is off by `skew`.
fn timing(skew_us: i64, sent: bool, round_trip_us: Option<i64>) -> Timing {
    Timing {
        received_us: Some(RECEIVED),
        sent_us: sent.then_some(SENT + skew_us),
        // the offset is wrong by half the round trip at most: here by all of that
        clock: round_trip_us.map(|us| ClockSync { offset_us: us / 2 - skew_us, round_trip_us: us }),
    }
}

/// within half a round trip with a sync, within the network's delay by policy, for any skew.
#[rstest]
#[case::sync_and_age(true, Some(80_000), true, "sync", 40_000)]
#[case::sync(true, Some(80_000), false, "sync", 40_000)]
#[case::sync_without_sent(false, Some(80_000), false, "sync", 40_000)]
#[case::age(true, None, true, "age", SECOND / 2)]
#[case::sent(true, None, false, "sent", SECOND / 2)]
fn a_wrong_clock_does_not_matter(
    #[case] sent: bool,
    #[case] round_trip_us: Option<i64>,
    #[case] age: bool,
    #[case] method: &str,
    #[case] error_max_us: i64,
    #[values(-3 * HOUR, -1, 0, 3 * HOUR)] skew_us: i64,
) {
    let timing = timing(skew_us, sent, round_trip_us);
    let age_us = age.then_some(SENT - EVENT);
    let found = correct(EVENT + skew_us, age_us, &timing, RECEIVED, RECEIVED + 300 * SECOND);
    assert_eq!(found.method, method);
    assert!((found.time_us - EVENT).abs() <= error_max_us, "{} µs off", found.time_us - EVENT);
    assert_eq!(found.uncertainty_us, round_trip_us.map(|us| us / 2));
}

#[rstest]
#[case::in_time(299 * SECOND, EVENT, "client")]
#[case::far_ahead(HOUR, RECEIVED, "client_clamped")]
fn who_says_nothing_is_believed_within_bounds(#[case] ahead_us: i64, #[case] from: i64, #[case] method: &str) {
    let created = if method == "client" { from } else { RECEIVED + ahead_us };
    let timing = Timing { received_us: Some(RECEIVED), ..Timing::default() };
    let found = correct(created, None, &timing, RECEIVED, RECEIVED + 300 * SECOND);
    assert_eq!((found.time_us, found.method, found.uncertainty_us), (from, method, None));
}

#[rstest]
#[case(f64::NAN, 1.0)]
#[case(1e300, 1.0)]
#[case(1.0, -1.0)]
#[case(1.0, f64::INFINITY)]
fn a_sync_that_cannot_be_is_refused(#[case] offset_ms: f64, #[case] round_trip_ms: f64) {
    assert_eq!(ClockSync::from_ms(offset_ms, round_trip_ms).unwrap_err().code, Code::BadRequest);
}

//! The ledger of what came in, beside what a run has counted (invariant I11).

use schemas::documents::certificate::IntakeCheck;
use schemas::{Certificate, Cut, IntakeBucket, IntakeCounts};

/// Puts a stream's intake into a certificate. What does not balance, or is less than what lies below the
/// cut, is a violation: records were lost or counted twice on the way in.
pub fn add_intake(certificate: &mut Certificate, buckets: &[IntakeBucket], cut: &Cut) {
    let counts = IntakeCounts::sum(buckets.iter().map(|bucket| &bucket.counts));
    let landed: u64 = buckets.iter().map(|bucket| bucket.landed).sum();
    let tail = counts.accepted.saturating_sub(landed);
    let balance = i64::try_from(counts.balance()).unwrap_or(i64::MAX);
    let IntakeCounts { received, replayed, accepted, duplicates, quarantined, .. } = counts;
    if balance != 0 {
        certificate.violations.push(format!(
            "ledger: {received} records received and {replayed} replayed, {accepted} accepted, {duplicates} duplicates, \
             {quarantined} quarantined: {balance} are in no class"
        ));
    }
    if accepted < cut.total() || landed > accepted {
        let below = cut.total();
        certificate
            .violations
            .push(format!("ledger: {accepted} records accepted, {landed} landed, {below} below the cut"));
    }
    certificate.ledger.intake = Some(IntakeCheck { counts, landed, tail, erased: 0, balance });
}

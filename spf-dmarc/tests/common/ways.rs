//! The ways to run one check: each gives the verdict of the one that keeps a trace.

use postwright_core::MemoryZone;
use postwright_spf_dmarc::spf::{Memory, SpfQuery, SpfResult, check};
use postwright_testkit::at_once;

/// Runs a query without a trace, which passes over what cannot match; then twice with a memory, which reads a record
/// the first time at most.
#[track_caller]
pub(crate) fn same_untraced_and_remembered(
    query: &SpfQuery<'_>,
    zone: &MemoryZone,
    memory: &Memory,
    traced: &SpfResult,
) {
    for query in [query.clone(), query.clone().memory(memory), query.clone().memory(memory)] {
        let mut result = at_once(check(&query, zone));
        assert!(result.trace.is_empty());
        result.trace.clone_from(&traced.trace);
        assert_eq!(result, *traced);
    }
}

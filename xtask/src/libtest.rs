//! Reads what Rust's test harness prints, line by line.
//!
//! Invariant: each test counts once: as failed, as skipped (ignored, or it announced `skipped: SUITE (why)`, see
//! postwright-testkit), or as passed. A run that never came to its closing line counts as one failure.
//!
//! Not here: running anything.

use std::collections::{BTreeMap, BTreeSet};

/// What a test said of a suite of public data or of an independent implementation: `cases: SUITE RUN DEVIATING (why)`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Cases {
    pub(crate) run: usize,
    pub(crate) deviating: usize,
    pub(crate) why: String,
}

/// The tests of one suite: a test binary, or the doctests of one crate.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// `SUITE (why)`, once each.
    pub(crate) reasons: BTreeSet<String>,
    /// By the suite's name.
    pub(crate) cases: BTreeMap<String, Cases>,
    /// The names of the failed tests.
    pub(crate) failures: BTreeSet<String>,
}

/// Reads the output of one suite, run with `--show-output`.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tally: Tally,
    /// The test whose captured output is being read.
    section: Option<String>,
    announced: BTreeSet<String>,
    closed: bool,
}

impl Reader {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.section = Some(name.to_owned());
        } else if let Some(reason) = line.trim_start().strip_prefix("skipped: ") {
            self.tally.reasons.insert(reason.to_owned());
            // Without a section the line was not captured; then each reason stands for a test.
            self.announced.insert(self.section.clone().unwrap_or_else(|| reason.to_owned()));
        } else if let Some((suite, cases)) = cases(line) {
            self.tally.cases.insert(suite, cases);
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.close(rest);
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.tally.failures.insert(name.to_owned());
        }
    }

    /// `ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.30s`
    fn close(&mut self, rest: &str) {
        let count = |label: &str| {
            let before = rest.split("; ").find_map(|part| part.strip_suffix(label));
            before.and_then(|text| text.rsplit(' ').next()).and_then(|number| number.parse::<usize>().ok())
        };
        // Doctests close once for each of their binaries, and a skip in an earlier one is counted already.
        let announced = std::mem::take(&mut self.announced);
        let passed = count(" passed").unwrap_or(0);
        let said = announced.iter().filter(|name| !self.tally.failures.contains(*name)).count().min(passed);
        self.tally.passed += passed - said;
        self.tally.skipped += said + count(" ignored").unwrap_or(0);
        self.tally.failed += count(" failed").unwrap_or(0);
        self.section = None;
        self.closed = true;
    }

    /// The suite's result; `success` is what its exit code said.
    pub(crate) fn end(mut self, success: bool) -> Tally {
        if self.tally.failed == 0 && (!success || !self.closed) {
            self.tally.failed = 1;
            self.tally.failures.insert("(the suite ended before its tests did)".to_owned());
        }
        self.tally
    }
}

fn cases(line: &str) -> Option<(String, Cases)> {
    let mut words = line.trim_start().strip_prefix("cases: ")?.splitn(4, ' ');
    let (suite, run, deviating) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let why = words.next()?.strip_prefix('(')?.strip_suffix(')')?.to_owned();
    Some((suite.to_owned(), Cases { run, deviating, why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> Tally {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.end(success)
    }

    const CLEAN: &str = "\
running 3 tests
test a ... ok
test b ... ok
test c ... ignored

successes:

---- a stdout ----
hello
skipped: spf (no suites)
skipped: spf (no suites)

successes:
    a
    b

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.30s";

    #[test]
    fn a_test_that_skips_is_not_counted_as_passed() {
        let tally = read(CLEAN, true);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 0, 2));
        assert_eq!(tally.reasons.into_iter().collect::<Vec<_>>(), ["spf (no suites)"]);
    }

    #[test]
    fn the_cases_of_a_suite_are_gathered() {
        let text = "cases: pyspf 9000 12 (by RFC 7208 (5.4))\ncases: spf-rfc7208 203 0 ()\ncases: none\n";
        let tally = read(&format!("{text}{CLEAN}"), true);
        let shown: Vec<_> = tally
            .cases
            .iter()
            .map(|(suite, it)| (suite.as_str(), it.run, it.deviating, it.why.as_str()))
            .collect();
        assert_eq!(shown, [("pyspf", 9000, 12, "by RFC 7208 (5.4)"), ("spf-rfc7208", 203, 0, "")]);
    }

    #[test]
    fn failures_are_named() {
        let tally = read(
            "test x::y ... FAILED\ntest z ... ok\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            false,
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 1, 0));
        assert_eq!(tally.failures.into_iter().collect::<Vec<_>>(), ["x::y"]);
    }

    #[test]
    fn a_suite_that_dies_has_failed() {
        assert_eq!(read("running 3 tests\ntest a ... ok", false).failed, 1);
        assert_eq!(read("", true).failed, 1);
        assert_eq!(read(CLEAN, false).failed, 1);
    }

    #[test]
    fn several_closing_lines_add_up() {
        let tally = read(&format!("{CLEAN}\n{CLEAN}"), true);
        assert_eq!((tally.passed, tally.skipped), (2, 4));
    }
}

//! Advice about rules: [`lint`] finds rules that can never decide.
//!
//! Invariant: a finding is certain, not a guess: every text that one phrase finds is found by an earlier rule.
//!
//! Not here: errors that keep rules from loading (`rules`).

use super::matcher::pieces;
use super::rules::Rule;

/// Something odd about a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule's name.
    pub rule: Box<str>,
    /// The rule's line.
    pub line: usize,
    /// The phrase that never decides.
    pub phrase: Box<str>,
    /// The earlier rule that always does.
    pub shadowed_by: Box<str>,
}

/// Phrases that are shadowed by a phrase of an earlier rule of the same tier and conditions: the earlier phrase is contained in
/// the later one.
pub fn lint(rules: &[Rule]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, later) in rules.iter().enumerate() {
        for phrase in &later.any {
            let Ok(long) = pieces(phrase) else { continue };
            let shadow = rules.iter().take(i).find(|earlier| {
                covers(earlier, later)
                    && earlier.any.iter().any(|short| {
                        // One piece that lies within any piece of the longer phrase is found wherever that is found.
                        pieces(short).is_ok_and(|short| match &short[..] {
                            [only] => long.iter().any(|piece| piece.contains(only.as_str())),
                            several => several == long,
                        })
                    })
            });
            if let Some(earlier) = shadow {
                findings.push(Finding {
                    rule: later.name.clone(),
                    line: later.line,
                    phrase: phrase.clone(),
                    shadowed_by: earlier.name.clone(),
                });
            }
        }
    }
    findings
}

/// Whether `earlier` is tried whenever `later` is, and before it.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let tier = |rule: &Rule| (!rule.early, rule.weak, rule.mx.is_empty());
    tier(earlier) <= tier(later)
        && earlier.mx.is_empty()
        && (earlier.codes.is_empty() || earlier.codes == later.codes)
}

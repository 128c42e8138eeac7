//! Rules as data: [`AutomationRule`], "when this happens N times in a period on a path, do that for so long".
//!
//! Invariant: a rule counts by source and site, fires at most once for each time its threshold is met, and starts
//! counting anew after it fired. Its patterns are texts with `*`, matched without regard to case in time that is
//! at most the product of both lengths.
//!
//! Not here: carrying out the action (`mod.rs`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use postwright_core::Timestamp;

use super::Signal;
use crate::limit::{Dimension, Kind, Scope};
use crate::path::{Key, Path};

/// Paths on which rules are counting at the same time; beyond it the oldest counts are dropped.
const COUNTS_MAX: usize = 65_536;
/// Longest part of a reply that patterns look at, in octets.
const TEXT_MAX: usize = 2048;

/// How often, within how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// So many times; 0 counts as 1.
    pub count: u32,
    /// Within this period.
    pub period: Duration,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Stop what agrees with the path in these dimensions: `Scope::SOURCE_SITE` for this path, or its tenant, its
    /// stream, its source.
    Suspend(Scope),
    /// Send probes only, until one succeeds.
    BackOff,
    /// At most so many messages a minute.
    Pace(f64),
    /// At most so many connections.
    Connections(u32),
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AutomationRule {
    /// Its name in events.
    pub name: Box<str>,
    /// The paths that it is about; none is all.
    pub when: Vec<(Dimension, Box<str>)>,
    /// The signal; `None` is any of the refusals.
    pub signal: Option<Signal>,
    /// A pattern that the reply must match, with `*` for any text; empty matches all.
    pub pattern: Box<str>,
    /// How often.
    pub threshold: Threshold,
    /// What to do.
    pub action: Action,
    /// For how long. Back-off ends by itself.
    pub duration: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl AutomationRule {
    /// The rules that a shaper starts with.
    ///
    /// The codes are the ones that the providers document for their senders; the numbers are ours.
    pub fn built_in() -> Vec<AutomationRule> {
        let rule =
            |name: &str, provider: Option<&str>, signal, pattern: &str, (count, period), action, duration| {
                let when = provider.map(|provider| (Dimension::Provider, provider.into()));
                let threshold = Threshold { count, period };
                let (name, pattern) = (name.into(), pattern.into());
                AutomationRule {
                    name,
                    when: when.into_iter().collect(),
                    signal,
                    pattern,
                    threshold,
                    action,
                    duration,
                }
            };
        let here = Action::Suspend(Scope::of(&[Dimension::Source, Dimension::Provider]));
        let minute = Duration::from_secs(60);
        vec![
            rule("blocked", None, Some(Signal::Blocked), "", (3, HOUR), Action::BackOff, HOUR),
            rule(
                "gmail-unusual-rate",
                Some("gmail"),
                None,
                "*4.7.28*",
                (3, minute),
                Action::Pace(30.0),
                HOUR,
            ),
            rule(
                "yahoo-deferred",
                Some("yahoo"),
                None,
                "*[ts0*]*",
                (3, 10 * minute),
                Action::Pace(20.0),
                HOUR,
            ),
            rule("yahoo-complaints", Some("yahoo"), None, "*[tss04]*", (3, HOUR), here, 2 * HOUR),
            rule("comcast-rate", Some("comcast"), None, "*rl0000*", (2, HOUR), Action::Pace(100.0), 2 * HOUR),
            rule(
                "outlook-reputation",
                Some("microsoft-consumer"),
                None,
                "*(rp-00*",
                (3, HOUR),
                Action::Pace(10.0),
                HOUR,
            ),
            rule("outlook-blocked", Some("microsoft-consumer"), None, "*(s3150)*", (3, HOUR), here, 4 * HOUR),
            rule("complaints", None, Some(Signal::Complained), "", (50, HOUR), Action::Pace(10.0), HOUR),
        ]
    }

    fn is_about(&self, path: &Path, signal: Signal, text: &str) -> bool {
        let refusal = !matches!(signal, Signal::Connected | Signal::Delivered);
        self.signal.map_or(refusal, |wanted| wanted == signal)
            && self.when.iter().all(|(dimension, value)| path.value(*dimension) == Some(value))
            && (self.pattern.is_empty() || matches(&self.pattern, text))
    }
}

/// Counts for all rules.
pub(super) struct Matcher {
    rules: Vec<AutomationRule>,
    counts: HashMap<(usize, Key), VecDeque<Timestamp>>,
}

impl Matcher {
    pub(super) fn new(rules: Vec<AutomationRule>) -> Matcher {
        Matcher { rules, counts: HashMap::new() }
    }

    /// The rules whose threshold this meets, each with its cause in words.
    pub(super) fn observe(
        &mut self,
        path: &Path,
        signal: Signal,
        text: &str,
        now: Timestamp,
    ) -> Vec<(AutomationRule, String)> {
        if matches!(signal, Signal::Connected | Signal::Delivered) {
            // The two that come all the time are no rule's business unless it names them.
            if self.rules.iter().all(|rule| rule.signal != Some(signal)) {
                return Vec::new();
            }
        }
        let text = text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default();
        let mut fired = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.is_about(path, signal, text) {
                continue;
            }
            if self.counts.len() >= COUNTS_MAX {
                self.counts.clear();
            }
            let key = (index, path.key(Kind::Messages, Scope::SOURCE_SITE, "rule"));
            let times = self.counts.entry(key).or_default();
            times.retain(|at| now.since(*at) < rule.threshold.period);
            times.push_back(now);
            if times.len() >= rule.threshold.count as usize {
                times.clear();
                let cause = format!("rule {}: {} {text}", rule.name, signal.as_str());
                fired.push((rule.clone(), cause.trim_end().to_owned()));
            }
        }
        fired
    }

    pub(super) fn sweep(&mut self, now: Timestamp) {
        let rules = &self.rules;
        self.counts.retain(|(index, _), times| {
            let period = rules.get(*index).map_or(Duration::ZERO, |rule| rule.threshold.period);
            times.back().is_some_and(|last| now.since(*last) < period)
        });
    }
}

/// `*` stands for any text; ASCII letters match in either case. Greedy with one point to fall back to.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(found) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if wanted.eq_ignore_ascii_case(found) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("*4.7.28*", "421-4.7.28 Our system", true),
            ("*[ts0*]*", "421 4.7.0 [TS01] Messages", true),
            ("*[tss04]*", "421 4.7.0 [TS01] Messages", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-c-", false),
            ("abc", "abcd", false),
            ("a**c", "abc", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        // What takes a backtracking matcher forever.
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn a_rule_fires_at_its_threshold_and_starts_anew() {
        let rule = AutomationRule {
            threshold: Threshold { count: 3, period: Duration::from_secs(10) },
            ..AutomationRule::built_in().swap_remove(0)
        };
        let mut matcher = Matcher::new(vec![rule]);
        let path = Path::to("example.org".parse().unwrap());
        let fired: Vec<usize> = [0, 4, 11, 13, 14, 15, 16]
            .map(|secs| {
                matcher.observe(&path, Signal::Blocked, "", Timestamp::from_secs(1_000_000 + secs)).len()
            })
            .into();
        // 4, 11, 13 lie within ten seconds; then 14, 15, 16 do.
        assert_eq!(fired, [0, 0, 0, 1, 0, 0, 1]);
    }
}

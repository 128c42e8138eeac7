//! The same rules as a plain `RegexSet`: a phrase is its words with anything but letters and digits between them.
//!
//! Not here: codes, tiers between rules and codes: the set only says which rule comes first.

use postwright_bounce::classify::{Classifier, Refused};
use regex::{RegexSet, RegexSetBuilder};

pub(crate) struct Patterns {
    set: RegexSet,
    /// For each pattern its rule, by place.
    rules: Vec<usize>,
    names: Vec<String>,
    /// For each rule the codes that it asks for, and whether it asks for a host.
    conditions: Vec<(Vec<String>, bool)>,
}

impl Patterns {
    pub(crate) fn of(classifier: &Classifier) -> Patterns {
        let (mut texts, mut rules, mut names, mut conditions) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, rule) in classifier.rules().enumerate() {
            names.push(rule.name.to_string());
            conditions.push((rule.codes.iter().map(|code| code.to_string()).collect(), !rule.mx.is_empty()));
            for phrase in &rule.any {
                texts.push(phrase_as_regex(phrase));
                rules.push(place);
            }
            for regex in &rule.regex {
                texts.push(regex.to_string());
                rules.push(place);
            }
        }
        let set = RegexSetBuilder::new(texts)
            .case_insensitive(true)
            .size_limit(1 << 30)
            .dfa_size_limit(1 << 30)
            .build()
            .expect("the built-in rules are sound");
        Patterns { set, rules, names, conditions }
    }

    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    pub(crate) fn name(&self, rule: usize) -> &str {
        &self.names[rule]
    }

    /// The first rule that fits.
    pub(crate) fn first(&self, line: &str) -> Option<usize> {
        let refused = Refused::from_line(line);
        let fits = |rule: &usize| {
            let (codes, asks_host) = &self.conditions[*rule];
            let code = || refused.code.map(|code| code.to_string()).unwrap_or_default();
            !asks_host && (codes.is_empty() || codes.iter().any(|prefix| code().starts_with(prefix.as_str())))
        };
        self.set.matches(refused.text).into_iter().map(|pattern| self.rules[pattern]).filter(fits).min()
    }
}

fn phrase_as_regex(phrase: &str) -> String {
    let pieces: Vec<String> = phrase
        .split(" .. ")
        .map(|piece| {
            let (piece, end) = match piece.strip_suffix('*') {
                Some(piece) => (piece, ""),
                None => (piece, r"(?:[^a-z0-9]|$)"),
            };
            let words: Vec<String> = piece.split(|c: char| !c.is_alphanumeric()).map(word_as_regex).collect();
            format!("(?:^|[^a-z0-9]){}{end}", words.join("[^a-z0-9]+"))
        })
        .collect();
    pieces.join(".{0,60}?")
}

/// `doesnt` is written without its apostrophe in phrases and with it in texts.
fn word_as_regex(word: &str) -> String {
    match word.strip_suffix('t').filter(|head| head.len() > 2 && head.ends_with('n')) {
        Some(head) => format!("{}'?t", regex::escape(head)),
        None => regex::escape(word),
    }
}

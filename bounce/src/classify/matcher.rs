//! Finding the first rule that matches: one automaton over all phrases, one set of regular expressions.
//!
//! Invariant: time is linear in the text (aho-corasick's and regex's own bound) whatever the text and the rules are: no
//! back-tracking anywhere. A rule of lower rank wins; of two rules of one rank the earlier one.
//!
//! Not here: the order between rules and codes (`classify`).

use std::sync::Arc;

use aho_corasick::automaton::Automaton;
use aho_corasick::{Anchored, MatchKind, dfa, nfa};
use regex::{Regex, RegexSet};

use super::rules::{Rule, RulesError};
use super::text::{fold, with_folded};

/// Most octets between two pieces of a phrase that are parted by ` .. `.
const GAP: usize = 60;

/// Where a rule stands: user rules, then early ones, then a provider's, then the rest, then the weak ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    User,
    Early,
    Provider,
    Text,
    Weak,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    pub(super) tier: Tier,
    /// Its name, shared with verdicts.
    pub(super) name: Arc<str>,
    /// Its reply codes: a number and what a code is divided by before it is compared.
    codes: Vec<(u16, u16)>,
}

/// Where a pattern occurs: piece `piece` of a phrase of `rule`.
#[derive(Debug, Clone, Copy)]
struct Use {
    rule: usize,
    /// Number of the phrase's first piece among all pieces of long phrases; pieces of one phrase follow each other.
    slot: usize,
    piece: usize,
    last: bool,
    /// Not what the rule finds, but what its regular expressions need.
    is_need: bool,
}

/// A regular expression that is tried in texts with a certain phrase only.
#[derive(Debug)]
struct Gated {
    rule: usize,
    regex: Regex,
}

#[derive(Debug)]
pub(super) struct Matcher {
    rules: Vec<Compiled>,
    machine: Machine,
    uses: Vec<Vec<Use>>,
    regexes: Option<RegexSet>,
    regex_rules: Vec<usize>,
    gated: Vec<Gated>,
}

/// What a rule may ask about besides the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub(super) code: Option<u16>,
    pub(super) mx: Option<&'a str>,
}

/// The rules in the order in which they are asked.
fn compiled(user: Vec<Rule>, built_in: Vec<Rule>) -> Vec<Compiled> {
    let mut rules: Vec<Compiled> = Vec::new();
    for (rule, is_user) in
        user.into_iter().map(|rule| (rule, true)).chain(built_in.into_iter().map(|rule| (rule, false)))
    {
        let tier = match (is_user, rule.early, rule.mx.is_empty()) {
            (true, ..) => Tier::User,
            (_, true, _) => Tier::Early,
            _ if rule.weak => Tier::Weak,
            (_, _, false) => Tier::Provider,
            _ => Tier::Text,
        };
        let codes = rule.codes.iter().filter_map(|prefix| {
            let divisor = 10_u16.pow(3 - u32::try_from(prefix.len().min(3)).unwrap_or(3));
            Some((prefix.parse().ok()?, divisor))
        });
        rules.push(Compiled { name: rule.name.as_ref().into(), codes: codes.collect(), rule, tier });
    }
    rules.sort_by_key(|compiled| compiled.tier);
    rules
}

/// One machine for the phrases of all rules, and what each of its patterns is a piece of.
fn phrases(rules: &[Compiled]) -> Result<(Machine, Vec<Vec<Use>>), RulesError> {
    let mut patterns: Vec<String> = Vec::new();
    let mut numbers = std::collections::BTreeMap::new();
    let mut uses: Vec<Vec<Use>> = Vec::new();
    let mut slots = 0;
    for (i, compiled) in rules.iter().enumerate() {
        let any = compiled.rule.any.iter().map(|phrase| (phrase, false));
        for (phrase, is_need) in any.chain(compiled.rule.needs.iter().map(|phrase| (phrase, true))) {
            let pieces = pieces(phrase).map_err(|what| RulesError::new(compiled.rule.line, what))?;
            let count = pieces.len();
            for (piece, pattern) in pieces.into_iter().enumerate() {
                let number = *numbers.entry(pattern.clone()).or_insert_with(|| {
                    patterns.push(pattern);
                    uses.push(Vec::new());
                    uses.len() - 1
                });
                if let Some(list) = uses.get_mut(number) {
                    list.push(Use { rule: i, slot: slots, piece, last: piece + 1 == count, is_need });
                }
            }
            slots += count;
        }
    }
    let machine =
        Machine::new(&patterns).map_err(|error| RulesError::new(1, format!("too many phrases: {error}")))?;
    Ok((machine, uses))
}

impl Matcher {
    pub(super) fn new(user: Vec<Rule>, built_in: Vec<Rule>) -> Result<Matcher, RulesError> {
        let rules = compiled(user, built_in);
        let (machine, uses) = phrases(&rules)?;
        let mut texts = Vec::new();
        let (mut regex_rules, mut gated) = (Vec::new(), Vec::new());
        for (i, compiled) in rules.iter().enumerate() {
            for regex in &compiled.rule.regex {
                let text = format!("(?i){regex}");
                let regex = Regex::new(&text).map_err(|error| {
                    RulesError::new(compiled.rule.line, error.to_string().replace('\n', " "))
                })?;
                if compiled.rule.needs.is_empty() {
                    texts.push(text);
                    regex_rules.push(i);
                } else {
                    gated.push(Gated { rule: i, regex });
                }
            }
        }
        let regexes = if texts.is_empty() {
            None
        } else {
            Some(
                RegexSet::new(texts)
                    .map_err(|error| RulesError::new(1, error.to_string().replace('\n', " ")))?,
            )
        };
        Ok(Matcher { rules, machine, uses, regexes, regex_rules, gated })
    }

    pub(super) fn rules(&self) -> &[Compiled] {
        &self.rules
    }

    /// The first rule that matches.
    pub(super) fn find(&self, text: &str, conditions: Conditions<'_>, most: usize) -> Option<&Compiled> {
        let text = if text.len() > most { &text[..text.floor_char_boundary(most)] } else { text };
        let best = with_folded(text, |folded| self.search(folded, text, conditions));
        self.rules.get(self.search_regexes(text, conditions, best))
    }

    /// The first rule that has a phrase in the folded text, or a regular expression that such a phrase calls for.
    fn search(&self, folded: &[u8], text: &str, conditions: Conditions<'_>) -> usize {
        let mut found = Found { matcher: self, text, conditions, best: self.rules.len(), begun: Vec::new() };
        let mut hit = |pattern, start, end| found.hit(pattern, start, end);
        match &self.machine {
            Machine::Fast(dfa) => walk(dfa, folded, &mut hit),
            Machine::Small(nfa) => walk(nfa, folded, &mut hit),
        }
        found.best
    }

    /// The regular expressions that are tried in every text.
    fn search_regexes(&self, text: &str, conditions: Conditions<'_>, mut best: usize) -> usize {
        if let Some(regexes) = &self.regexes {
            for number in &regexes.matches(text) {
                match self.regex_rules.get(number) {
                    Some(rule) if *rule < best && self.allows(*rule, conditions) => best = *rule,
                    _ => {}
                }
            }
        }
        best
    }

    fn allows(&self, rule: usize, conditions: Conditions<'_>) -> bool {
        let Some(Compiled { rule, codes, .. }) = self.rules.get(rule) else { return false };
        let code_fits = rule.codes.is_empty()
            || conditions
                .code
                .is_some_and(|code| codes.iter().any(|(wanted, divisor)| code / divisor == *wanted));
        let mx_fits = rule.mx.is_empty()
            || conditions.mx.is_some_and(|mx| {
                rule.mx.iter().any(|suffix| {
                    let head = mx.len().checked_sub(suffix.len());
                    head.is_some_and(|head| {
                        mx.get(head..).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
                            && (head == 0 || mx.as_bytes().get(head - 1) == Some(&b'.'))
                    })
                })
            });
        code_fits && mx_fits
    }
}

/// All phrases as one automaton: a table of all steps for a usual number of them, a smaller form for more.
#[derive(Debug)]
enum Machine {
    Fast(dfa::DFA),
    Small(nfa::contiguous::NFA),
}

impl Machine {
    fn new(patterns: &[String]) -> Result<Machine, aho_corasick::BuildError> {
        Ok(if patterns.len() <= 4000 {
            Machine::Fast(dfa::DFA::builder().match_kind(MatchKind::Standard).build(patterns)?)
        } else {
            Machine::Small(nfa::contiguous::NFA::builder().match_kind(MatchKind::Standard).build(patterns)?)
        })
    }
}

/// Tells of every place where a pattern ends: its number, where it begins, where it ends.
fn walk<A: Automaton>(machine: &A, text: &[u8], hit: &mut impl FnMut(usize, usize, usize)) {
    let Ok(mut state) = machine.start_state(Anchored::No) else { return };
    for (at, octet) in text.iter().enumerate() {
        state = machine.next_state(Anchored::No, state, *octet);
        if machine.is_special(state) && machine.is_match(state) {
            for index in 0..machine.match_len(state) {
                let pattern = machine.match_pattern(state, index);
                let end = at + 1;
                hit(pattern.as_usize(), end.saturating_sub(machine.pattern_len(pattern)), end);
            }
        }
    }
}

/// The search of one text.
struct Found<'m> {
    matcher: &'m Matcher,
    text: &'m str,
    conditions: Conditions<'m>,
    best: usize,
    /// For phrases of several pieces: the next piece's slot and where the piece before it ended.
    begun: Vec<(usize, usize)>,
}

impl Found<'_> {
    fn hit(&mut self, pattern: usize, start: usize, end: usize) {
        let Some(uses) = self.matcher.uses.get(pattern) else { return };
        for at in uses {
            if at.rule >= self.best {
                // Uses stand in the order of rules.
                return;
            }
            let slot = at.slot + at.piece;
            let goes_on = at.piece == 0
                || self.begun.iter().any(|(next, ended)| {
                    // Two pieces may share the blank between them.
                    *next == slot && start + 1 >= *ended && start <= *ended + GAP
                });
            if !goes_on {
                continue;
            }
            if !at.last {
                match self.begun.iter_mut().find(|(next, _)| *next == slot + 1) {
                    Some((_, ended)) => *ended = end,
                    None => self.begun.push((slot + 1, end)),
                }
            } else if self.matcher.allows(at.rule, self.conditions)
                && (!at.is_need || self.called_for(at.rule))
            {
                self.best = at.rule;
            }
        }
    }

    fn called_for(&self, rule: usize) -> bool {
        self.matcher.gated.iter().any(|gated| gated.rule == rule && gated.regex.is_match(self.text))
    }
}

/// The pieces of a phrase, folded like the text they are looked for in.
pub(super) fn pieces(phrase: &str) -> Result<Vec<String>, String> {
    phrase
        .split(" .. ")
        .map(|piece| {
            let (words, open_end) = match piece.strip_suffix('*') {
                Some(words) => (words, true),
                None => (piece, false),
            };
            let mut folded = String::new();
            fold(words, 1024, &mut folded);
            if open_end && folded.ends_with(' ') {
                folded.pop();
            }
            if folded.trim().is_empty() {
                return Err(format!(
                    "the phrase {phrase:?} has a piece without a word: addresses and codes are skipped"
                ));
            }
            Ok(folded)
        })
        .collect()
}

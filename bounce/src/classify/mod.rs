//! What a refusal means: [`Classifier`].
//!
//! The order of belief: user rules; early rules (texts that are more precise than any code); a precise enhanced status; rules
//! for the provider; rules for anybody's text; a vague enhanced status; weak rules; the reply code. Class 5 is permanent and class 4
//! transient unless the rule knows better.
//!
//! Invariant: a verdict for any input, in time linear in its length. Not here: what to do with the verdict (mta, shaping).
//!
//! Standards: RFC 3463, RFC 5248, RFC 5321 4.2, RFC 7504, RFC 7505.

mod category;
mod lint;
mod matcher;
mod rules;
mod status;
mod text;

pub use category::{Action, Category, Permanence, Row, Scope, TABLE, UnknownName};
pub use lint::{Finding, lint};
pub use rules::{FILE_MAX, RULES_MAX, Rule, RulesError, parse as parse_rules};
pub use text::normalise;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use postwright_core::{Cause, DeliveryStatus, Diagnostic, EnhancedStatus, Outcome, Phase};

use crate::Limits;
use matcher::{Compiled, Conditions, Matcher, Tier};
use status::Strength;

/// The rules that come with the crate.
pub const BUILT_IN_RULES: &str = include_str!("../../rules/builtin.toml");

/// A refusal, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refused<'a> {
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status.
    pub status: Option<EnhancedStatus>,
    /// The text, its lines joined by blanks.
    pub text: &'a str,
    /// The name of the host that refused.
    pub mx: Option<&'a str>,
    /// In which phase.
    pub phase: Option<Phase>,
}

impl<'a> Refused<'a> {
    /// Takes a reply apart: `550 5.1.1 text`, `550-5.1.1 text`, `5.1.1 text`, `text`.
    ///
    /// ```
    /// use postwright_bounce::classify::Refused;
    /// let refused = Refused::from_line("550-5.1.1 no such user");
    /// assert_eq!((refused.code, refused.text), (Some(550), "no such user"));
    /// ```
    pub fn from_line(line: &'a str) -> Refused<'a> {
        let line = line.trim();
        let mut rest = line;
        let mut code = None;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 3 {
            let (head, tail) = rest.split_at(3);
            let number = head.parse::<u16>().ok().filter(|n| (200..=599).contains(n) && n / 10 % 10 <= 5);
            if number.is_some()
                && (tail.is_empty() || tail.starts_with([' ', '-', ':', '\t', ',', ';', '#', '.']))
                && !tail.starts_with(".")
            {
                code = number;
                rest = tail.get(1..).unwrap_or("").trim_start();
            }
        }
        let word = rest.split_ascii_whitespace().next().unwrap_or("");
        let mut status = word
            .trim_matches(['#', ':', '(', ')', '[', ']', '<', '>', ',', ';'])
            .parse::<EnhancedStatus>()
            .ok();
        if status.is_some() {
            rest = rest.get(word.len()..).unwrap_or("").trim_start();
        } else {
            status = text::find_status(rest);
        }
        let class = code.map(|code| code / 100);
        let status =
            status.filter(|status| class.is_none_or(|class| class == u16::from(status.class()) || class < 4));
        Refused { code, status, text: rest, mx: None, phase: None }
    }
}

/// What decided a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Because {
    /// A rule, by name.
    Rule(Arc<str>),
    /// The enhanced status.
    Status(EnhancedStatus),
    /// The reply code.
    Code(u16),
    /// A reason of our own.
    Cause,
    /// Nothing: the refusal says nothing.
    Nothing,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Rule(name) => f.write_str(name),
            Because::Status(status) => write!(f, "status {status}"),
            Because::Code(code) => write!(f, "code {code}"),
            Because::Cause => f.write_str("cause"),
            Because::Nothing => f.write_str("none"),
        }
    }
}

/// What a refusal means, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Classification {
    /// What it means.
    pub category: Category,
    /// Whether a retry of this very message could succeed.
    pub permanence: Permanence,
    /// Whether the address itself is dead: the only reason to suppress it at once.
    pub hard: bool,
    /// What it is about.
    pub scope: Scope,
    /// What to do.
    pub action: Action,
    /// How precise the evidence is, 0 to 100: an order, not a probability.
    pub confidence: u8,
    /// What decided.
    pub rule: Because,
}

/// Classifies refusals. Immutable and cheap to share; see [`Reloadable`] for changing rules at run time.
#[derive(Debug)]
pub struct Classifier {
    matcher: Matcher,
    limits: Limits,
}

impl Classifier {
    /// The built-in rules.
    ///
    /// # Panics
    /// If the built-in rules are broken, which a test rules out.
    pub fn built_in() -> Classifier {
        Classifier::with_rules("").expect("the built-in rules are sound")
    }

    /// User rules before the built-in ones.
    ///
    /// # Errors
    /// The line of `user` that is not understood.
    pub fn with_rules(user: &str) -> Result<Classifier, RulesError> {
        let matcher = Matcher::new(rules::parse(user)?, rules::parse(BUILT_IN_RULES)?)?;
        Ok(Classifier { matcher, limits: Limits::default() })
    }

    /// The rules in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.matcher.rules().iter().map(|compiled| &compiled.rule)
    }

    /// What a delivery status means.
    pub fn classify(&self, status: &DeliveryStatus) -> Classification {
        match &status.diagnostic {
            Diagnostic::Smtp(reply) => {
                let text = reply.text();
                let mx = status.remote.as_ref().map(|remote| remote.host.to_string());
                self.classify_refusal(Refused {
                    code: Some(reply.code().get()),
                    // `x.0.0` may be made up for a reply without one: the text may hold another.
                    status: reply.status().or_else(|| text::find_status(&text)),
                    text: &text,
                    mx: mx.as_deref(),
                    phase: Some(status.phase),
                })
            }
            Diagnostic::Local(cause) => local(cause, status),
        }
    }

    /// What a line such as `550 5.1.1 No such user` means.
    pub fn classify_line(&self, line: &str) -> Classification {
        self.classify_refusal(Refused::from_line(line))
    }

    /// What a refusal means.
    pub fn classify_refusal(&self, refused: Refused<'_>) -> Classification {
        let found = self.matcher.find(
            refused.text,
            Conditions { code: refused.code, mx: refused.mx },
            self.limits.refusal,
        );
        let by_status = refused.status.and_then(|status| Some((status, status::meaning(status)?)));
        let class = refused.code.map(|code| code / 100).filter(|class| matches!(class, 4 | 5));
        let class = class.or(refused.status.map(|status| u16::from(status.class())));
        if class == Some(2) {
            return verdict(
                Category::Delivered,
                class,
                refused.code.map_or(Because::Nothing, Because::Code),
                50,
            );
        }
        match (found, by_status) {
            (Some(rule), _) if rule.tier <= Tier::Early => by_rule(rule, class),
            (_, Some((status, (category, Strength::Strong)))) => {
                verdict(category, class, Because::Status(status), 95)
            }
            (Some(rule), _) if rule.tier < Tier::Weak => by_rule(rule, class),
            (_, Some((status, (category, Strength::Weak)))) => {
                verdict(category, class, Because::Status(status), 60)
            }
            (Some(rule), _) => by_rule(rule, class),
            (None, Some((status, (category, _)))) => verdict(category, class, Because::Status(status), 40),
            (None, None) => match refused.code {
                Some(code) => verdict(by_code(code, refused.phase), class, Because::Code(code), 30),
                None => verdict(Category::Undefined, class, Because::Nothing, 0),
            },
        }
    }
}

impl Default for Classifier {
    fn default() -> Classifier {
        Classifier::built_in()
    }
}

fn by_rule(found: &Compiled, class: Option<u16>) -> Classification {
    let rule = &found.rule;
    let confidence = match found.tier {
        Tier::User => 100,
        Tier::Early | Tier::Provider => 90,
        Tier::Text => 80,
        Tier::Weak => 50,
    };
    let mut verdict = verdict(rule.category, class, Because::Rule(found.name.clone()), confidence);
    if let Some(permanence) = rule.permanence {
        verdict.permanence = permanence;
        verdict.action = action(rule.category, permanence);
    }
    verdict.hard = rule.hard.unwrap_or(verdict.hard);
    verdict.scope = rule.scope.unwrap_or(verdict.scope);
    verdict.action = rule.action.unwrap_or(verdict.action);
    verdict
}

pub(crate) fn verdict(
    category: Category,
    class: Option<u16>,
    rule: Because,
    confidence: u8,
) -> Classification {
    let permanence = match class {
        Some(5) => Permanence::Permanent,
        Some(4) => Permanence::Transient,
        _ => by_nature(category),
    };
    let row = category.row();
    let action = action(category, permanence);
    // "No such domain" with a transient code is a look-up that may have failed; "no such user" is a fact of the user's own host.
    let hard = row.hard && !(row.scope == Scope::Domain && class == Some(4));
    Classification { category, permanence, hard, scope: row.scope, action, confidence, rule }
}

/// Without any code: what usually holds for the category.
fn by_nature(category: Category) -> Permanence {
    use Category::*;
    match category {
        Undefined | Delivered | AutoReply | Complaint => Permanence::Unknown,
        MailboxFull | RateLimited | TooManyConnections | TooManyRecipients | Greylisted | Network | Dns
        | SystemError | SystemFull => Permanence::Transient,
        _ => Permanence::Permanent,
    }
}

fn action(category: Category, permanence: Permanence) -> Action {
    let row = category.row();
    match (row.action, permanence) {
        (Action::Suppress, _) => Action::Suppress,
        (Action::Retry, Permanence::Permanent) => Action::None,
        (Action::None, Permanence::Transient) => Action::Retry,
        (action, _) => action,
    }
}

/// What a reply code says alone (RFC 5321 4.2.3, RFC 7504). 550 and 554 say nothing about the recipient.
fn by_code(code: u16, phase: Option<Phase>) -> Category {
    use Category::*;
    match code {
        500..=504 | 555 => Protocol,
        421 | 451 => SystemError,
        452 if phase == Some(Phase::Rcpt) => TooManyRecipients,
        452 => SystemFull,
        432 | 454 | 530 | 534 | 535 | 538 => Credentials,
        // RFC 7504: the host, or the domain, takes no mail at all.
        521 | 556 => NoMail,
        552 if phase == Some(Phase::Rcpt) => MailboxFull,
        552 => TooLarge,
        _ => Undefined,
    }
}

fn local(cause: &Cause, status: &DeliveryStatus) -> Classification {
    use Category::*;
    let category = match cause {
        Cause::NoRoute => HostUnknown,
        Cause::NullMx => NoMail,
        Cause::Dns(_) => Dns,
        Cause::Unreachable | Cause::Timeout(_) | Cause::ConnectionLost(_) => Network,
        Cause::Protocol(..) | Cause::MissingExtension(_) => Protocol,
        Cause::Tls(_) => Tls,
        Cause::Loop => RoutingLoop,
        Cause::Policy(_) | Cause::Suppressed(_) => Policy,
        Cause::Expired => Expired,
        Cause::Internal(_) => SystemError,
        _ => Undefined,
    };
    let class = match status.outcome {
        Outcome::Failed => Some(5),
        Outcome::Delayed => Some(4),
        _ => None,
    };
    let mut verdict = verdict(category, class, Because::Cause, 100);
    // A name that is not found today may be found tomorrow while the outcome says so.
    verdict.hard &= status.outcome == Outcome::Failed;
    if matches!(cause, Cause::Policy(_) | Cause::Internal(_) | Cause::Cancelled(_) | Cause::Suppressed(_)) {
        verdict.scope = Scope::Us;
    }
    verdict
}

/// A classifier whose rules can be changed while it is in use.
#[derive(Debug)]
pub struct Reloadable(RwLock<Arc<Classifier>>);

impl Reloadable {
    /// Begins with `classifier`.
    pub fn new(classifier: Classifier) -> Reloadable {
        Reloadable(RwLock::new(Arc::new(classifier)))
    }

    /// The present classifier; keep it for a batch, it does not change under you.
    pub fn get(&self) -> Arc<Classifier> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts new user rules in force, all or none.
    ///
    /// # Errors
    /// As [`Classifier::with_rules`]; the old rules stay.
    pub fn reload(&self, user: &str) -> Result<(), RulesError> {
        let new = Arc::new(Classifier::with_rules(user)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

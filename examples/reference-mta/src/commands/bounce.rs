//! `postwright bounce`: what refusals mean; and bounces and complaints for `postwright report parse`.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_bounce::Limits;
use postwright_bounce::classify::{Classifier, lint, normalise, parse_rules};
use postwright_bounce::report::{Kind, MailReport, read as read_mail};
use serde_json::{Value, json};

use super::report::Input;
use super::{Failure, output};

/// `postwright bounce ...`.
#[derive(Args)]
pub(crate) struct Bounce {
    #[command(subcommand)]
    command: BounceCommand,
}

#[derive(Subcommand)]
enum BounceCommand {
    /// Classifies refusals: lines such as `550 5.1.1 No such user` on stdin, a line of JSON for each.
    Classify(Classify),
    /// Checks a file of rules and names phrases that can never decide.
    Lint {
        /// The file; the built-in rules without one.
        rules: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Classify {
    /// Rules (TOML) that go before the built-in ones.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Adds `"group"`: the text with addresses, ids and hosts replaced, equal for equal refusals.
    #[arg(long)]
    group: bool,
}

impl Bounce {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            BounceCommand::Classify(command) => classify(&command),
            BounceCommand::Lint { rules } => lint_rules(rules.as_ref()),
        }
    }
}

fn rules_text(path: Option<&PathBuf>) -> Result<String, Failure> {
    let Some(path) = path else { return Ok(String::new()) };
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn classify(command: &Classify) -> Result<ExitCode, Failure> {
    let rules = rules_text(command.rules.as_ref())?;
    let classifier = Classifier::with_rules(&rules).map_err(Failure::new)?;
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read =
            input.read_until(b'\n', &mut line).map_err(|error| Failure::new(format!("stdin: {error}")))?;
        if read == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            continue;
        }
        let verdict = classifier.classify_line(text);
        let mut shown = json!({
            "input": text,
            "category": verdict.category.as_str(),
            "permanence": verdict.permanence.as_str(),
            "hard": verdict.hard,
            "scope": verdict.scope.as_str(),
            "action": verdict.action.as_str(),
            "rule": verdict.rule.to_string(),
        });
        if command.group {
            shown["group"] = Value::from(normalise(text));
        }
        output::json(&shown)?;
    }
}

fn lint_rules(path: Option<&PathBuf>) -> Result<ExitCode, Failure> {
    let text = match path {
        Some(_) => rules_text(path)?,
        None => postwright_bounce::classify::BUILT_IN_RULES.to_owned(),
    };
    let findings = lint(&parse_rules(&text).map_err(Failure::new)?);
    for finding in &findings {
        output::json(&json!({
            "line": finding.line,
            "rule": &*finding.rule,
            "phrase": &*finding.phrase,
            "shadowed_by": &*finding.shadowed_by,
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bounce, a complaint or an automatic reply; `None` for anything else.
pub(crate) fn read(input: &Input) -> Option<Result<Value, Failure>> {
    let report = understood(input);
    // Failure reports about authentication are DMARC's.
    let is_dmarc =
        report.feedback.as_ref().is_some_and(|feedback| &*feedback.feedback_type == "auth-failure");
    (report.kind != Kind::None && !is_dmarc).then(|| Ok(show(&report)))
}

/// Any other mail: `none`.
pub(crate) fn read_any_mail(input: &Input) -> Option<Result<Value, Failure>> {
    let head = input.octets.get(..4096).unwrap_or(&input.octets);
    let first = head.split(|octet| *octet == b'\n').find(|line| !line.starts_with(b"From "))?;
    let colon = first.iter().position(|octet| *octet == b':')?;
    let is_field = colon > 0 && first.iter().take(colon).all(|octet| (0x21..=0x7e).contains(octet));
    is_field.then(|| Ok(show(&understood(input))))
}

fn understood(input: &Input) -> MailReport {
    read_mail(&input.octets, &Classifier::built_in(), &Limits::default())
}

fn show(report: &MailReport) -> Value {
    let recipients: Vec<Value> = report
        .reports
        .iter()
        .map(|one| {
            json!({
                "recipient": &*one.recipient,
                "original_recipient": one.original_recipient.as_deref(),
                "action": one.action.map(|action| action.to_string()),
                "status": one.status.map(|status| status.to_string()),
                "code": one.code,
                "diagnostic": one.diagnostic.as_deref(),
                "category": one.classification.category.as_str(),
                "permanence": one.classification.permanence.as_str(),
                "hard": one.classification.hard,
            })
        })
        .collect();
    json!({
        "kind": report.kind.as_str(),
        "reports": recipients,
        "feedback_type": report.feedback.as_ref().map(|feedback| &*feedback.feedback_type),
        "original_message_id": report.original_message_id.as_deref(),
    })
}

//! Rows and policies as one line of text: fields between tabs.
//!
//! Invariant: what is written reads back equal, whatever strangers put into a domain; a line that was cut short is
//! refused or reads as what it was before the cut would be *no* other row: each line ends in a mark.
//!
//! Not here: files (journal.rs).

use postwright_spf_dmarc::report::{Disposition, DkimAuth, PolicyReason, PublishedPolicy, Row, SpfAuth};

/// The last field of a whole line.
const END: &str = ".";
/// A field that is absent; no escaped text looks like it.
const ABSENT: &str = "\\N";
/// Longest list that is read.
const LIST_MAX: usize = 100;

/// A line while it is written.
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new(kind: &str) -> Writer {
        Writer(kind.to_owned())
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Writer {
        self.0.push('\t');
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '\t' => self.0.push_str("\\t"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                c => self.0.push(c),
            }
        }
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Writer {
        self.text(&number.to_string())
    }

    fn maybe(&mut self, text: &Option<String>) -> &mut Writer {
        match text {
            Some(text) => self.text(text),
            None => {
                self.0.push('\t');
                self.0.push_str(ABSENT);
                self
            }
        }
    }

    pub(super) fn policy(&mut self, policy: &PublishedPolicy) -> &mut Writer {
        let PublishedPolicy { domain, p, sp, np, adkim, aspf, fo, pct, testing, discovery_method } = policy;
        self.text(domain);
        for tag in [p, sp, np, adkim, aspf, fo, pct, testing, discovery_method] {
            self.maybe(tag);
        }
        self
    }

    /// Everything but the count.
    pub(super) fn row(&mut self, row: &Row) -> &mut Writer {
        self.text(&row.source_ip.to_string()).text(row.disposition.as_str());
        self.number(row.dkim_aligned.into()).number(row.spf_aligned.into());
        self.text(&row.header_from).maybe(&row.envelope_from).maybe(&row.envelope_to);
        self.number(count(&row.reasons));
        for reason in &row.reasons {
            self.text(&reason.kind).maybe(&reason.comment);
        }
        self.number(count(&row.dkim));
        for dkim in &row.dkim {
            self.text(&dkim.domain).maybe(&dkim.selector).text(&dkim.result).maybe(&dkim.human_result);
        }
        self.number(count(&row.spf));
        for spf in &row.spf {
            self.text(&spf.domain).maybe(&spf.scope).text(&spf.result).maybe(&spf.human_result);
        }
        self
    }

    /// The whole line.
    pub(super) fn line(&mut self) -> String {
        format!("{}\t{END}\n", std::mem::take(&mut self.0))
    }
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// A line while it is read.
pub(super) struct Reader<'l>(std::str::Split<'l, char>);

impl<'l> Reader<'l> {
    /// The kind and the fields of a line; `None` if it is not whole.
    pub(super) fn new(line: &'l str) -> Option<(&'l str, Reader<'l>)> {
        let mut fields = line.strip_suffix(END)?.strip_suffix('\t')?.split('\t');
        Some((fields.next()?, Reader(fields)))
    }

    fn maybe(&mut self) -> Option<Option<String>> {
        let field = self.0.next()?;
        if field == ABSENT {
            return Some(None);
        }
        let mut text = String::with_capacity(field.len());
        let mut chars = field.chars();
        while let Some(c) = chars.next() {
            text.push(match c {
                '\\' => match chars.next()? {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    '\\' => '\\',
                    _ => return None,
                },
                c => c,
            });
        }
        Some(Some(text))
    }

    fn text(&mut self) -> Option<String> {
        self.maybe()?
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.0.next()? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len: usize = self.number()?;
        if len > LIST_MAX {
            return None;
        }
        (0..len).map(|_| one(self)).collect()
    }

    pub(super) fn policy(&mut self) -> Option<PublishedPolicy> {
        Some(PublishedPolicy {
            domain: self.text()?,
            p: self.maybe()?,
            sp: self.maybe()?,
            np: self.maybe()?,
            adkim: self.maybe()?,
            aspf: self.maybe()?,
            fo: self.maybe()?,
            pct: self.maybe()?,
            testing: self.maybe()?,
            discovery_method: self.maybe()?,
        })
    }

    pub(super) fn row(&mut self, count: u64) -> Option<Row> {
        Some(Row {
            count,
            source_ip: self.number()?,
            disposition: self.disposition()?,
            dkim_aligned: self.flag()?,
            spf_aligned: self.flag()?,
            header_from: self.text()?,
            envelope_from: self.maybe()?,
            envelope_to: self.maybe()?,
            reasons: self
                .list(|fields| Some(PolicyReason { kind: fields.text()?, comment: fields.maybe()? }))?,
            dkim: self.list(|fields| {
                Some(DkimAuth {
                    domain: fields.text()?,
                    selector: fields.maybe()?,
                    result: fields.text()?,
                    human_result: fields.maybe()?,
                })
            })?,
            spf: self.list(|fields| {
                Some(SpfAuth {
                    domain: fields.text()?,
                    scope: fields.maybe()?,
                    result: fields.text()?,
                    human_result: fields.maybe()?,
                })
            })?,
        })
    }

    fn disposition(&mut self) -> Option<Disposition> {
        let text = self.0.next()?;
        let all = [Disposition::None, Disposition::Pass, Disposition::Quarantine, Disposition::Reject];
        all.into_iter().find(|disposition| disposition.as_str() == text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row with everything in it, and with what breaks lines.
    pub(in crate::reports) fn odd_row() -> (PublishedPolicy, Row) {
        let some = |text: &str| Some(text.to_owned());
        let policy = PublishedPolicy {
            domain: "example.org".to_owned(),
            p: some("none"),
            fo: some(""),
            testing: some("\\N"),
            ..PublishedPolicy::default()
        };
        let row = Row {
            source_ip: "2001:db8::1".parse().unwrap(),
            count: 3,
            disposition: Disposition::Quarantine,
            dkim_aligned: false,
            spf_aligned: true,
            reasons: vec![PolicyReason { kind: "local_policy".to_owned(), comment: some("a\tb\r\nc\\") }],
            header_from: "ex\tample".to_owned(),
            envelope_from: None,
            envelope_to: some(""),
            dkim: vec![DkimAuth { domain: "d\n".to_owned(), selector: some("s"), ..DkimAuth::default() }; 2],
            spf: vec![SpfAuth { domain: ".".to_owned(), result: "pass".to_owned(), ..SpfAuth::default() }],
        };
        (policy, row)
    }

    #[test]
    fn what_is_written_reads_back_and_no_cut_line_does() {
        let (policy, row) = odd_row();
        let line = Writer::new("k").policy(&policy).row(&row).line();
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'));
        let read = |line: &str| {
            let (_, mut fields) = Reader::new(line)?;
            Some((fields.policy()?, fields.row(3)?))
        };
        assert_eq!(read(line), Some((policy, row)));
        for cut in 0..line.len() {
            assert_eq!(read(&line[..cut]), None, "{}", &line[..cut]);
        }
    }
}

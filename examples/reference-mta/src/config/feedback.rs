//! Checks of `[feedback]` and `relay.recipients`, and reading the files that they name.
//!
//! Not here: what the values do (the library's `feedback`).

use std::collections::BTreeSet;
use std::path::Path;

use postwright_core::{EnhancedStatus, Mailbox, Refusal};

use super::schema::Feedback;
use crate::commands::Failure;

impl Feedback {
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.store, &self.domain, &self.keys) {
            (None, Some(_), _) | (None, _, Some(_)) => {
                Err("feedback.domain and feedback.keys need feedback.store: the folder of the list"
                    .to_owned())
            }
            (_, Some(domain), None) => Err(format!(
                "feedback.domain is {domain} and feedback.keys is missing: without a signature anybody could suppress \
                 addresses by forged bounces"
            )),
            (_, None, Some(_)) => Err("feedback.keys is of no use without feedback.domain".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The keys of a file: its lines, without empty ones.
pub(crate) fn keys(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let text = read("feedback.keys", path)?;
    let keys: Vec<Vec<u8>> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.as_bytes().to_vec())
        .collect();
    if keys.is_empty() || keys.iter().any(|key| key.len() < 16) {
        let what = "wants one key a line, each of at least 16 characters";
        return Err(Failure::new(format!("feedback.keys {}: {what}", path.display())));
    }
    Ok(keys)
}

/// Who exists: whole addresses and whole domains, in lower case.
pub(crate) struct Recipients {
    addresses: BTreeSet<String>,
    domains: BTreeSet<String>,
}

impl Recipients {
    /// Reads a file: one address or `@domain` a line; `#` begins a comment.
    pub(crate) fn load(path: &Path) -> Result<Recipients, Failure> {
        let mut found = Recipients { addresses: BTreeSet::new(), domains: BTreeSet::new() };
        for (i, line) in read("relay.recipients", path)?.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |what: &dyn std::fmt::Display| {
                Failure::new(format!("{}:{}: {line:?}: {what}", path.display(), i + 1))
            };
            if let Some(domain) = line.strip_prefix('@') {
                let domain: postwright_core::Domain = domain.parse().map_err(|error| wrong(&error))?;
                found.domains.insert(domain.to_string());
            } else {
                let address: Mailbox = line.parse().map_err(|error| wrong(&error))?;
                found.addresses.insert(plain(&address));
            }
        }
        Ok(found)
    }

    /// Whether a mailbox exists. The postmaster of every domain does (RFC 5321 4.5.1), and `abuse` (RFC 2142 2).
    pub(crate) fn check(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        let local = mailbox.local_unquoted();
        let is_duty = ["postmaster", "abuse"].iter().any(|duty| local.eq_ignore_ascii_case(duty));
        if is_duty
            || self.domains.contains(&mailbox.host().to_string())
            || self.addresses.contains(&plain(mailbox))
        {
            return Ok(());
        }
        Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "No such mailbox here"))
    }
}

fn plain(mailbox: &Mailbox) -> String {
    format!("{}@{}", mailbox.local_unquoted(), mailbox.host()).to_lowercase()
}

fn read(key: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file(key, path, &error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn who_is_listed_exists_in_any_case_and_nobody_else() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# staff\nAnn@Example.org\n@all.example # everybody\n\n").unwrap();
        let recipients = Recipients::load(file.path()).unwrap();
        for (address, exists) in [
            ("ann@example.org", true),
            ("ANN@example.org", true),
            ("\"ann\"@example.org", true),
            ("bob@example.org", false),
            ("postmaster@example.org", true),
            ("Abuse@example.org", true),
            ("anyone@all.example", true),
            ("ann+x@example.org", false),
        ] {
            assert_eq!(recipients.check(&address.parse().unwrap()).is_ok(), exists, "{address}");
        }
        let refusal = recipients.check(&"bob@example.org".parse().unwrap()).unwrap_err();
        assert!(refusal.to_string().contains("5.1.1"), "{refusal}");
        file.write_all(b"not an address\n").unwrap();
        let complaint = Recipients::load(file.path()).err().unwrap().to_string();
        assert!(complaint.contains(":5:") && complaint.contains("not an address"), "{complaint}");
    }
}

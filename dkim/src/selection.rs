//! Which header fields are signed.
//!
//! Standards: RFC 6376 5.4 (From is signed), 5.4.1 (recommended fields), 5.4.2 and 8.15 (signing absent fields, "oversigning").

use crate::limits::Limits;
use crate::names::Names;
use crate::section::{FieldName, Section};
use crate::sign::SignError;

/// A field that is signed where present, and whether it is signed once more than it occurs, so that nobody can add
/// one.
const fn field(name: &'static str, oversigned: bool) -> (FieldName, bool) {
    (FieldName::new(name), oversigned)
}

/// RFC 6376 5.4.1, and what tells a reader how to read the body (RFC 2045), and the one-click unsubscription, which
/// RFC 8058 4 wants signed. Oversigned: what a reader sees and what decides how the body is read.
const RECOMMENDED: [(FieldName, bool); 27] = [
    field("From", true),
    field("Sender", false),
    field("Reply-To", true),
    field("Subject", true),
    field("Date", true),
    field("Message-ID", true),
    field("To", true),
    field("Cc", true),
    field("MIME-Version", true),
    field("Content-Type", true),
    field("Content-Transfer-Encoding", true),
    field("Content-ID", false),
    field("Content-Description", false),
    field("Resent-Date", false),
    field("Resent-From", false),
    field("Resent-To", false),
    field("Resent-Cc", false),
    field("In-Reply-To", false),
    field("References", false),
    field("List-Id", false),
    field("List-Help", false),
    field("List-Unsubscribe", false),
    field("List-Unsubscribe-Post", false),
    field("List-Subscribe", false),
    field("List-Post", false),
    field("List-Owner", false),
    field("List-Archive", false),
];

/// The choice of header fields for `h=`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SignedFields {
    /// The fields that RFC 6376 5.4.1 recommends, each as often as it occurs; those that a reader sees or that
    /// decide how the body is read, once more than they occur.
    #[default]
    Recommended,
    /// The recommended fields as often as they occur: more may be added on the way.
    PresentOnly,
    /// Exactly this `h=`. A name that is repeated, or that no field has, signs the absence of another.
    Exactly(Vec<String>),
}

impl SignedFields {
    /// The names of `h=` for a header, From among them.
    pub(crate) fn names(&self, section: &Section) -> Result<Names, SignError> {
        let max = Limits::default().signed_names;
        let mut names = Names::with_capacity(512);
        match self {
            SignedFields::Exactly(exactly) => exactly.iter().take(max + 1).for_each(|name| names.push(name)),
            SignedFields::Recommended | SignedFields::PresentOnly => {
                let over = *self == SignedFields::Recommended;
                for (name, oversigned) in &RECOMMENDED {
                    let times = section.count(name) + usize::from(over && *oversigned);
                    (0..times.min(max + 1)).for_each(|_| names.push(name.as_str()));
                }
            }
        }
        if names.len() > max {
            return Err(SignError::TooManyFields);
        }
        Ok(names)
    }

    /// Whether the names can stand in `h=` and From is one of them.
    pub(crate) fn check(&self) -> Result<(), SignError> {
        let SignedFields::Exactly(names) = self else { return Ok(()) };
        let is_name = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b':' | b';'))
        };
        if !names.iter().all(is_name) {
            return Err(SignError::FieldName);
        }
        if !names.iter().any(|name| name.eq_ignore_ascii_case("from")) {
            return Err(SignError::FromNotSigned);
        }
        Ok(())
    }
}

//! Which header fields are signed.
//!
//! Standards: RFC 6376 5.4 (From is signed), 5.4.1 (recommended fields), 5.4.2 and 8.15 (signing absent fields, "oversigning").

use crate::limits::Limits;
use crate::section::Section;
use crate::sign::SignError;

/// Signed where present: RFC 6376 5.4.1, and what tells a reader how to read the body (RFC 2045), and the one-click
/// unsubscription, which RFC 8058 4 wants signed.
const RECOMMENDED: [&str; 27] = [
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// Signed once more than they occur, so that nobody can add one.
const OVERSIGNED: [&str; 10] = [
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
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
    pub(crate) fn names(&self, section: &Section) -> Result<Vec<Box<str>>, SignError> {
        let mut names: Vec<Box<str>> = Vec::with_capacity(32);
        match self {
            SignedFields::Exactly(exactly) => names.extend(exactly.iter().map(|name| name.as_str().into())),
            SignedFields::Recommended | SignedFields::PresentOnly => {
                let over = *self == SignedFields::Recommended;
                for name in RECOMMENDED {
                    let extra = usize::from(over && OVERSIGNED.contains(&name));
                    let times = section.count(name.as_bytes()) + extra;
                    names.extend(std::iter::repeat_n(Box::from(name), times));
                }
            }
        }
        if names.len() > Limits::default().signed_names {
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

//! One-click unsubscription: the two header fields, and what comes back.
//!
//! Invariant: the fields always come together, and the https link cannot break out of its brackets.
//!
//! Standards: RFC 8058 3; RFC 2369 3.2. Not here: the web server; the DKIM signature that must cover both fields (RFC 8058 4).

use postwright_core::{HeaderField, Mailbox};

/// Why a link makes no header field; the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsubscribeError {
    /// RFC 8058 wants https.
    #[error("a one-click link begins with https:// (RFC 8058 3.1)")]
    NotHttps,
    /// Blanks, brackets, controls and commas must be percent-encoded (RFC 2369 2).
    #[error(
        "the link holds a blank, bracket, comma, control or non-ASCII character, or is longer than 900 octets"
    )]
    Link,
}

/// The fields `List-Unsubscribe` and `List-Unsubscribe-Post`; sign both.
///
/// # Errors
/// If the link is not https, or cannot stand between angle brackets.
pub fn fields(https: &str, mailto: Option<&Mailbox>) -> Result<[HeaderField; 2], UnsubscribeError> {
    if !https.starts_with("https://") {
        return Err(UnsubscribeError::NotHttps);
    }
    if https.len() > 900 || !https.bytes().all(|octet| octet.is_ascii_graphic() && !b"<>,\"".contains(&octet))
    {
        return Err(UnsubscribeError::Link);
    }
    let plain = |address: &&Mailbox| {
        address.to_string().bytes().all(|octet| octet.is_ascii_alphanumeric() || b"@.-_+=".contains(&octet))
    };
    let mailto = mailto.filter(plain).map(|address| format!(",\r\n <mailto:{address}?subject=unsubscribe>"));
    let value = format!("<{https}>{}", mailto.unwrap_or_default());
    let link = HeaderField::new("List-Unsubscribe", &value).map_err(|_| UnsubscribeError::Link)?;
    let post = HeaderField::new("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
    Ok([link, post.map_err(|_| UnsubscribeError::Link)?])
}

/// Whether the body of a POST asks for it (RFC 8058 3.2): form-encoded, or a part of a multipart form. A GET never does.
pub fn is_one_click(body: &[u8]) -> bool {
    let body = body.get(..4096).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let encoded = text.trim().split('&').any(|pair| pair == "List-Unsubscribe=One-Click");
    let part = text
        .split_once("name=\"List-Unsubscribe\"")
        .is_some_and(|(_, rest)| rest.trim_start().starts_with("One-Click"));
    encoded || part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_in_the_rfc() {
        let mailto: Mailbox = "u+abc@example.org".parse().unwrap();
        let [link, post] = fields("https://example.com/unsubscribe/opaquepart", Some(&mailto)).unwrap();
        assert_eq!(
            link.value(),
            "<https://example.com/unsubscribe/opaquepart>,\r\n <mailto:u+abc@example.org?subject=unsubscribe>"
        );
        assert_eq!(post.as_bytes(), b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
        assert_eq!(fields("http://example.com/", None), Err(UnsubscribeError::NotHttps));
        assert_eq!(fields("https://example.com/>\r\nBcc: x", None), Err(UnsubscribeError::Link));
    }

    #[test]
    fn only_the_post_of_the_rfc_counts() {
        assert!(is_one_click(b"List-Unsubscribe=One-Click"));
        // RFC 8058 8.2: multipart/form-data.
        assert!(is_one_click(b"---FormBoundaryjWmhtjORrn\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n"));
        assert!(
            !is_one_click(b"")
                && !is_one_click(b"List-Unsubscribe=no")
                && !is_one_click(b"x=List-Unsubscribe=One-Click")
        );
    }
}

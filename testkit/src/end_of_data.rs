//! Octets that look like the end of a message, for both the machine and the driver to be tried with.
//!
//! Standards: RFC 5321 4.1.1.4.
//!
//! Not here: where in a conversation and in what pieces they are sent (the tests).

/// A transaction that is smuggled in if anything here is taken for the end of the data.
pub const ATTACK: &[u8] =
    b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n";

/// Where in a message the octets stand.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Behind some of its body.
    Middle,
    /// First.
    Start,
    /// Where the message has exceeded [`SIZE_LIMIT`].
    PastTheLimit,
}

/// The size that a server must allow for [`Place::PastTheLimit`] to be true, in octets.
pub const SIZE_LIMIT: u64 = 200;

impl Place {
    /// All of them.
    pub const ALL: [Place; 3] = [Place::Middle, Place::Start, Place::PastTheLimit];

    /// What the client sends before the octets.
    pub fn before(self) -> Vec<u8> {
        match self {
            Place::Middle => b"Subject: x\r\n\r\nbody".to_vec(),
            Place::Start => Vec::new(),
            Place::PastTheLimit => [b"0123456789abcdef0123456789\r\n".repeat(8), b"body".to_vec()].concat(),
        }
    }
}

/// The octets, and whether they do end a message, with something bad behind. Two more are in their places only: EOF
/// behind `CRLF.`, and `.CRLF` first, which is the empty message.
pub const CANDIDATES: &[(&[u8], bool)] = &[
    (b"\n.\n", false),
    (b"\n.\r\n", false),
    (b"\n.\r", false),
    (b"\r.\n", false),
    (b"\r.\r", false),
    (b"\r.\r\n", false),
    (b"\r\n.\n", false),
    (b"\r\n.\rX", false),
    (b"\r\n.\r\r\n", false),
    (b"\r\r\n.\r\r\n", false),
    (b"\n\n.\r\n", false),
    (b"\r\n\0.\r\n", false),
    (b"\r\n\0.\r", false),
    (b"\r\n\0.\n", false),
    (b"\r\0\n.\r\n", false),
    (b"\r\n.\0\r\n", false),
    (b"\r\n.\r\0\n", false),
    (b"\0\r\n.\r\n", false),
    (b"\r\n.\r\n\0", true),
    (b".\n", false),
];

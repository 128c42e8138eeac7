//! The server's side of SMTP and LMTP as a state machine without input and output.
//!
//! Invariant I9: a refused message leaves no transaction. After a refused DATA (other than for want of a valid
//! recipient), a refused BDAT or a refused end of message, for whatever reason, MAIL, RCPT and BDAT state is empty. A
//! refused RCPT leaves the other recipients as they were; a syntax error or a command out of sequence changes
//! nothing.
//!
//! Standards: RFC 5321; RFC 2033; RFC 2920; RFC 3030; RFC 3207; RFC 4954 and the others named in [`Config`].
//!
//! | file | job |
//! |---|---|
//! | `session.rs` | the machine: inputs, `poll`, phases |
//! | `dispatch.rs` | from a command to a question or a reply |
//! | `answers.rs` | from an answer to a reply and the next phase |
//! | `mail.rs` | MAIL and RCPT: what was offered, what may be asked |
//! | `body.rs` | DATA and BDAT |
//! | `auth.rs` | AUTH |
//! | `hello.rs` | EHLO and its keywords |
//! | `forward.rs` | XCLIENT and XFORWARD |
//! | `output.rs` | replies on their way out |
//! | `timers.rs` | deadlines |
//!
//! Not here: sockets, TLS, SASL mechanisms, policy.

mod answers;
mod auth;
mod body;
mod config;
mod dispatch;
mod forward;
mod hello;
mod input;
mod mail;
mod output;
mod question;
mod session;
mod step;
mod timers;

pub use config::{Config, Forwarded, Peer, Protocol};
pub use question::{Answer, AskId, Hello, Question};
pub use session::Session;
pub use step::{CloseReason, Step};

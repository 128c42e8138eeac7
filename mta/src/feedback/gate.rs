//! Around a delivery: who is not tried, and the return path of the rest.
//!
//! Invariant: one status for each recipient of the attempt, in order, whoever gave it, up to the first that was not tried.
//!
//! Not here: delivering (pipeline.rs).

use std::collections::VecDeque;

use postwright_core::{DeliveryStatus, Message, ReversePath};
use postwright_queue::Entry;

use crate::section::header_section;
use crate::system::System;

/// The recipients of an attempt: a status for those on the list, and the indices of those to be tried.
pub(crate) struct Gate {
    stopped: Vec<Option<DeliveryStatus>>,
    /// Indices into the recipients of the message.
    pub(crate) open: Vec<usize>,
}

impl Gate {
    /// Asks the list about each recipient.
    pub(crate) fn of(system: &System, entry: &Entry, recipients: &[usize]) -> Gate {
        let now = system.world.clock.now();
        let stops = |index: &usize| {
            let recipient = entry.envelope.recipients.get(*index)?;
            system.feedback.as_ref()?.stops(entry, &recipient.mailbox, now)
        };
        let stopped: Vec<_> = recipients.iter().map(stops).collect();
        let open =
            recipients.iter().zip(&stopped).filter(|(_, stopped)| stopped.is_none()).map(|(index, _)| *index);
        Gate { open: open.collect(), stopped }
    }

    /// All statuses in the order of the attempt; `tried` are those of [`Gate::open`], in its order. They end before the first
    /// recipient that was not tried.
    pub(crate) fn join(self, tried: Vec<DeliveryStatus>) -> Vec<DeliveryStatus> {
        let mut tried = VecDeque::from(tried);
        self.stopped.into_iter().map_while(|stopped| stopped.or_else(|| tried.pop_front())).collect()
    }
}

/// The reverse-path that a message leaves with.
pub(crate) fn return_path(system: &System, entry: &Entry, body: &Message) -> ReversePath {
    match &system.feedback {
        Some(feedback) => feedback.depart(entry, || message_id(body), system.world.clock.now()),
        None => entry.envelope.reverse_path.clone(),
    }
}

/// The value of the first `Message-ID` field (RFC 5322 3.6.4).
fn message_id(body: &Message) -> Option<String> {
    let section = header_section(body);
    let section = String::from_utf8_lossy(&section);
    let mut lines = section.split("\r\n").peekable();
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.trim_end().eq_ignore_ascii_case("message-id") {
            let folded = lines.next_if(|next| next.starts_with([' ', '\t'])).unwrap_or("");
            let id = [value.trim(), folded.trim()].concat();
            return (id.len() > 2).then_some(id);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_message_is_its_first_also_when_folded() {
        let id = |text: &'static str| message_id(&Message::from_bytes(text.as_bytes()));
        assert_eq!(id("To: a\r\nMESSAGE-ID: <1@a>\r\nMessage-ID: <2@a>\r\n\r\n").as_deref(), Some("<1@a>"));
        assert_eq!(id("Message-ID:\r\n <3@a>\r\n\r\n").as_deref(), Some("<3@a>"));
        assert_eq!(id("Subject: x\r\n\r\nMessage-ID: <4@a>\r\n"), None);
    }
}

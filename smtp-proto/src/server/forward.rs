//! XCLIENT and XFORWARD from trusted proxies.
//!
//! Invariant: attributes are decoded and checked before any of them counts; a command with one bad attribute
//! changes nothing.
//!
//! Standards: Postfix XCLIENT_README, XFORWARD_README; RFC 1891 5 (xtext).
//!
//! Not here: who is trusted ([`Config::xclient`](super::Config::xclient), set by the embedder for each peer).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::config::{Forwarded, Peer};
use super::dispatch::{BAD_ARGUMENTS, BAD_SEQUENCE, OK};
use super::session::{Session, Topic};
use crate::command::decode_xtext;

impl Session {
    pub(super) fn on_xclient(&mut self, text: &str) {
        if self.transaction.is_some() {
            return self.refuse(503, BAD_SEQUENCE, "XCLIENT is not possible during a transaction");
        }
        let Some(attributes) = attributes(text, XCLIENT) else { return self.bad_attributes() };
        let mut peer = self.peer.clone();
        if !attributes.iter().all(|(name, value)| put_xclient(&mut peer, name, value.as_deref())) {
            return self.bad_attributes();
        }
        // The session begins anew for the client that the proxy speaks for.
        self.authenticated = false;
        self.hello = None;
        self.peer = peer;
        self.ask(Topic::Connect);
    }

    pub(super) fn on_xforward(&mut self, text: &str) {
        if self.transaction.is_some() {
            return self.refuse(503, BAD_SEQUENCE, "XFORWARD is not possible during a transaction");
        }
        let Some(attributes) = attributes(text, XFORWARD) else { return self.bad_attributes() };
        let mut forwarded = self.peer.forwarded.clone();
        if !attributes.iter().all(|(name, value)| put_xforward(&mut forwarded, name, value.as_deref())) {
            return self.bad_attributes();
        }
        self.peer.forwarded = forwarded;
        self.output.say(250, Some(OK), "Ok");
    }

    fn bad_attributes(&mut self) {
        self.refuse(501, BAD_ARGUMENTS, "Bad attribute");
    }
}

const XCLIENT: &[&str] = &["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"];
const XFORWARD: &[&str] = &["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];
/// Longest value of an attribute after decoding (Postfix XFORWARD_README: 255).
const VALUE_MAX: usize = 255;

/// Names in upper case and decoded values; `None` as a value for `[UNAVAILABLE]` and `[TEMPUNAVAIL]`.
fn attributes(text: &str, known: &[&'static str]) -> Option<Vec<(&'static str, Option<String>)>> {
    let mut all = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=')?;
        let name = known.iter().find(|known| known.eq_ignore_ascii_case(name))?;
        let unknown =
            value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]");
        let value = if unknown { None } else { Some(decode_xtext(value).filter(|v| v.len() <= VALUE_MAX)?) };
        all.push((*name, value));
    }
    if all.is_empty() { None } else { Some(all) }
}

/// `192.0.2.1`, `IPV6:2001:db8::1`, or an IPv6 address as it stands.
fn address(text: &str) -> Option<IpAddr> {
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            text.get(5..)?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => text.parse().ok(),
    }
}

fn put_address(slot: &mut SocketAddr, value: Option<&str>) -> bool {
    match value {
        // An unknown client gets the unspecified address, so that no allow-list holds for it.
        None => slot.set_ip(Ipv4Addr::UNSPECIFIED.into()),
        Some(text) => match address(text) {
            Some(ip) => slot.set_ip(ip),
            None => return false,
        },
    }
    true
}

fn put_port(slot: &mut SocketAddr, value: Option<&str>) -> bool {
    let port = value.map_or(Some(0), |text| text.parse().ok());
    if let Some(port) = port {
        slot.set_port(port);
    }
    port.is_some()
}

fn put_xclient(peer: &mut Peer, name: &str, value: Option<&str>) -> bool {
    match name {
        "ADDR" => put_address(&mut peer.address, value),
        "PORT" => put_port(&mut peer.address, value),
        "DESTADDR" => put_address(&mut peer.local, value),
        "DESTPORT" => put_port(&mut peer.local, value),
        _ => put_text(&mut peer.forwarded, name, value),
    }
}

fn put_xforward(forwarded: &mut Forwarded, name: &str, value: Option<&str>) -> bool {
    let mut stated = forwarded.address.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let fine = match name {
        "ADDR" => put_address(&mut stated, value),
        "PORT" => put_port(&mut stated, value),
        _ => return put_text(forwarded, name, value),
    };
    forwarded.address = Some(stated);
    fine
}

fn put_text(forwarded: &mut Forwarded, name: &str, value: Option<&str>) -> bool {
    let slot = match name {
        "NAME" => &mut forwarded.name,
        "HELO" => &mut forwarded.hello,
        "PROTO" => &mut forwarded.protocol,
        "LOGIN" => &mut forwarded.login,
        "IDENT" => &mut forwarded.ident,
        "SOURCE" => &mut forwarded.source,
        _ => return false,
    };
    *slot = value.map(Into::into);
    true
}

//! Reading XML as leaves with a path: all that a report is.
//!
//! Invariant: entities are the five of XML and characters by number; nothing is fetched or declared. Depth and the
//! length of texts are limited. End tags that do not fit close what they can, as real reports need it.
//!
//! Standards: XML 1.0 as far as quick-xml goes; element names are compared without their prefix.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 32;

/// What the reader finds.
pub(super) enum Found<'x> {
    /// An element starts, by its path.
    Start(&'x [String]),
    /// An element ends; the text in it, blanks around left out.
    End(&'x [String], &'x str),
    /// The default namespace of an element.
    Namespace(String),
}

/// Walks through a document. Anything that cannot be read ends the walk.
pub(super) fn walk(document: &str, text_max: usize, mut found: impl FnMut(Found<'_>)) {
    let mut reader = Reader::from_str(document);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.expand_empty_elements = true;
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                if path.len() >= DEPTH_MAX {
                    return;
                }
                namespace(&start).into_iter().for_each(|uri| found(Found::Namespace(uri)));
                path.push(name(start.local_name().as_ref()));
                text.clear();
                found(Found::Start(&path));
            }
            Ok(Event::End(end)) => {
                let closed = name(end.local_name().as_ref());
                if path.contains(&closed) {
                    while let Some(last) = path.last() {
                        let last_one = *last == closed;
                        found(Found::End(&path, text.trim()));
                        path.pop();
                        text.clear();
                        if last_one {
                            break;
                        }
                    }
                }
            }
            Ok(Event::Text(piece)) => push(&mut text, &piece, text_max),
            Ok(Event::CData(piece)) => push(&mut text, &piece, text_max),
            Ok(Event::GeneralRef(entity)) => {
                let named = resolve_xml_entity(&entity).map(str::to_owned);
                let numbered = || entity.resolve_char_ref().ok().flatten().map(String::from);
                push(&mut text, &named.or_else(numbered).unwrap_or_default(), text_max);
            }
            Ok(Event::Eof) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn name(local: &str) -> String {
    local.to_ascii_lowercase()
}

fn namespace(start: &BytesStart<'_>) -> Option<String> {
    let attribute = start.try_get_attribute("xmlns").ok().flatten()?;
    Some(attribute.value.into_owned())
}

fn push(text: &mut String, piece: &str, most: usize) {
    let room = most.saturating_sub(text.len());
    let mut end = piece.len().min(room);
    while !piece.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(piece.get(..end).unwrap_or(""));
}

//! The hot cache: messages that were accepted a moment ago and will be read in a moment.
//!
//! Invariant: at most the given octets of records; what it holds equals what is stored.
//!
//! Not here: a cache for what is read again and again (the store has one of blocks).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::SpoolId;

struct Hot {
    entry: Bytes,
    records: Vec<Bytes>,
    octets: usize,
}

/// First in, first out: a message is read soon after it came, or much later.
pub(super) struct Cache {
    limit: usize,
    octets: usize,
    /// Looked up by id only; its order decides nothing.
    messages: HashMap<SpoolId, Hot>,
    order: VecDeque<SpoolId>,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Cache {
        Cache { limit, octets: 0, messages: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn insert(&mut self, id: SpoolId, entry: Bytes, records: Vec<Bytes>) {
        let octets = entry.len() + records.iter().map(Bytes::len).sum::<usize>();
        // One large message must not push out everything else.
        if octets > self.limit / 4 {
            return;
        }
        self.remove(id);
        self.octets += octets;
        self.messages.insert(id, Hot { entry, records, octets });
        self.order.push_back(id);
        while self.octets > self.limit || self.order.len() > 2 * self.messages.len() + 16 {
            let Some(oldest) = self.order.pop_front() else { break };
            // Ids that were removed stay in the queue until they come to its head or it grows too long.
            if self.octets > self.limit {
                self.remove(oldest);
            } else if self.messages.contains_key(&oldest) {
                self.order.push_back(oldest);
            }
        }
    }

    pub(super) fn update(&mut self, id: SpoolId, entry: &Bytes) {
        if let Some(hot) = self.messages.get_mut(&id) {
            self.octets = self.octets + entry.len() - hot.entry.len();
            hot.octets = hot.octets + entry.len() - hot.entry.len();
            hot.entry = entry.clone();
        }
    }

    pub(super) fn remove(&mut self, id: SpoolId) {
        if let Some(hot) = self.messages.remove(&id) {
            self.octets -= hot.octets;
        }
    }

    pub(super) fn get(&self, id: SpoolId) -> Option<(Bytes, Vec<Bytes>)> {
        self.messages.get(&id).map(|hot| (hot.entry.clone(), hot.records.clone()))
    }

    pub(super) fn clear(&mut self) {
        *self = Cache::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> SpoolId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        SpoolId::from_bytes(bytes)
    }

    #[test]
    fn it_stays_within_its_limit_and_drops_the_oldest() {
        let mut cache = Cache::new(1000);
        for number in 0..100 {
            cache.insert(id(number), Bytes::from(vec![0; 10]), vec![Bytes::from(vec![1; 90])]);
            assert!(cache.octets <= 1000);
        }
        assert!(cache.get(id(89)).is_none());
        assert!((90..100).all(|number| cache.get(id(number)).is_some()));
        cache.insert(id(200), Bytes::new(), vec![Bytes::from(vec![1; 300])]);
        assert!(cache.get(id(200)).is_none(), "too large to be kept");
    }

    #[test]
    fn the_order_does_not_grow_with_removals() {
        let mut cache = Cache::new(1000);
        for number in 0..10_000 {
            cache.insert(id(number), Bytes::from(vec![0; 10]), Vec::new());
            cache.remove(id(number));
        }
        assert!(cache.order.len() < 100);
        assert_eq!(cache.octets, 0);
    }

    #[test]
    fn updates_keep_the_count() {
        let mut cache = Cache::new(1000);
        cache.insert(id(1), Bytes::from(vec![0; 10]), Vec::new());
        cache.update(id(1), &Bytes::from(vec![0; 30]));
        assert_eq!(cache.octets, 30);
        cache.remove(id(1));
        assert_eq!(cache.octets, 0);
    }
}

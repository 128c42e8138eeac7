//! Body hashes: one pass over the body for any number of signatures.
//!
//! Invariant: each body algorithm runs at most once over each octet, and each distinct (algorithm, hash, `l=`) is
//! hashed once, however many signatures share it.
//!
//! Standards: RFC 6376 3.7, 3.5 (`l=`).

use crate::canon::{BodyCanon, Canon};
use crate::crypto::{Digest, Hash, HashValue, Provider};

/// Octets that are made canonical and hashed at a time: what is read twice is still in the second cache, which is
/// quicker than any hash.
pub(crate) const STEP: usize = 64 << 10;

/// Which body hash a signature needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyHashSpec {
    pub(crate) canon: Canon,
    pub(crate) hash: Hash,
    /// `l=`.
    pub(crate) length: Option<u64>,
}

/// A finished body hash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BodyHash {
    pub(crate) value: HashValue,
    /// Octets of the whole canonical body.
    pub(crate) octets: u64,
}

/// All body hashes of a message.
#[derive(Default)]
pub(crate) struct BodyHashes {
    specs: Vec<BodyHashSpec>,
    streams: Vec<Stream>,
}

/// One body algorithm and the hashes that it feeds.
struct Stream {
    kind: Canon,
    canon: BodyCanon,
    sinks: Sinks,
}

#[derive(Default)]
struct Sinks {
    octets: u64,
    sinks: Vec<Sink>,
    /// Short pieces on their way: each update of a hash has its price.
    gathered: Vec<u8>,
}

/// Pieces below this are gathered up to `GATHERED_MAX` octets: a block of SHA-256 has 64.
const SHORT: usize = 256;
const GATHERED_MAX: usize = 4096;

struct Sink {
    /// Place in `BodyHashes::specs`.
    spec: usize,
    digest: Box<dyn Digest>,
    /// Octets of `l=` that are still to come.
    left: Option<u64>,
}

impl BodyHashes {
    /// Asks for a hash; gives its place among the finished ones.
    pub(crate) fn want(&mut self, provider: Provider, spec: BodyHashSpec) -> usize {
        if let Some(known) = self.specs.iter().position(|known| *known == spec) {
            return known;
        }
        let place = self.specs.len();
        self.specs.push(spec);
        let sink = Sink { spec: place, digest: provider.0.digest(spec.hash), left: spec.length };
        match self.streams.iter_mut().find(|stream| stream.kind == spec.canon) {
            Some(stream) => stream.sinks.sinks.push(sink),
            None => self.streams.push(Stream {
                kind: spec.canon,
                canon: BodyCanon::new(spec.canon),
                sinks: Sinks { sinks: vec![sink], ..Sinks::default() },
            }),
        }
        place
    }

    pub(crate) fn feed(&mut self, octets: &[u8]) {
        for step in octets.chunks(STEP) {
            for Stream { canon, sinks, .. } in &mut self.streams {
                canon.feed(step, &mut |piece| sinks.update(piece));
            }
        }
    }

    /// The hashes, in the order in which they were first wanted.
    pub(crate) fn finish(self) -> Vec<BodyHash> {
        let mut done = vec![BodyHash::default(); self.specs.len()];
        for Stream { canon, mut sinks, .. } in self.streams {
            canon.finish(&mut |piece| sinks.update(piece));
            sinks.flush();
            let octets = sinks.octets;
            for sink in sinks.sinks {
                if let Some(place) = done.get_mut(sink.spec) {
                    *place = BodyHash { value: sink.digest.finish(), octets };
                }
            }
        }
        done
    }
}

impl Sinks {
    fn update(&mut self, piece: &[u8]) {
        self.octets = self.octets.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if piece.len() < SHORT {
            if self.gathered.len() + piece.len() > GATHERED_MAX {
                self.flush();
            }
            self.gathered.extend_from_slice(piece);
        } else {
            self.flush();
            self.sinks.iter_mut().for_each(|sink| sink.update(piece));
        }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.sinks.iter_mut().for_each(|sink| sink.update(&self.gathered));
            self.gathered.clear();
        }
    }
}

impl Sink {
    fn update(&mut self, piece: &[u8]) {
        let Some(left) = &mut self.left else { return self.digest.update(piece) };
        let now = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
        *left -= u64::try_from(now).unwrap_or(*left);
        self.digest.update(piece.get(..now).unwrap_or(piece));
    }
}

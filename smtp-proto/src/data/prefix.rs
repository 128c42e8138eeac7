//! How far a text goes without anything that a decoder must look at: [`plain`], many octets at a time.
//!
//! Invariant: in the prefix that is found CR and LF come only as pairs, no line begins with a dot, and there is no NUL.
//! It may be shorter than it could be, so whoever asks goes on octet by octet where it ends.
//!
//! Three readings of the same octets, each one further on, answer it without a branch: is this CR, is the next LF, is
//! the one behind that a dot. CR and LF must agree in every place, and LF and dot in none; of the second reading the
//! least octet is kept, which is 0 if any is. The vectors are chosen at run time (SSE2 to AVX2, NEON, WebAssembly), by a
//! crate whose interface is safe. Readings are what costs: a fourth makes it slower by a fifth although it saves an
//! instruction, and so do vectors of 64 octets (AVX-512), each of which lies across two lines of the cache.
//!
//! Not here: where exactly the text stops, and why ([`data`](super)).

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};

/// Octets behind those of a step that a step looks at.
const AHEAD: usize = 2;

/// The length of a prefix of `text` that is plain. The last octet may be the CR of a pair whose LF stands behind it.
/// Whether a dot that `text` begins with is one to remove is the caller's to know.
pub(super) fn plain(text: &[u8]) -> usize {
    // The readings for LF and NUL begin one octet on.
    match text {
        [b'\n' | 0, ..] => 0,
        _ => dispatch!(level(), simd => plain_with(simd, text)),
    }
}

/// Vectors of 32 octets at most.
fn level() -> Level {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if let Some(avx2) = Level::new().as_avx2() {
        return Level::Avx2(avx2);
    }
    Level::new()
}

/// First in strides of eight vectors, then one by one up to what stopped the stride.
#[inline(always)]
fn plain_with<S: Simd>(simd: S, text: &[u8]) -> usize {
    let at = walk::<S, 8>(simd, text, 0);
    walk::<S, 1>(simd, text, at)
}

/// Goes on from `at` as long as whole strides of `VECTORS` vectors are plain.
#[inline(always)]
fn walk<S: Simd, const VECTORS: usize>(simd: S, text: &[u8], mut at: usize) -> usize {
    let width = S::u8s::LEN;
    let zero = S::u8s::splat(simd, 0);
    while let Some(stride) = text.get(at..).and_then(|rest| rest.get(..VECTORS * width + AHEAD)) {
        let (mut odd, mut least) = (zero.simd_eq(1), S::u8s::splat(simd, u8::MAX));
        for start in (0..VECTORS).map(|vector| vector * width) {
            // In bounds, since the stride has `AHEAD` octets to spare.
            let read = |ahead: usize| S::u8s::from_slice(simd, &stride[start + ahead..start + ahead + width]);
            let next = read(1);
            let line_feed = next.simd_eq(b'\n');
            odd = odd | (read(0).simd_eq(b'\r') ^ line_feed) | (line_feed & read(2).simd_eq(b'.'));
            least = least.min(next);
        }
        if (odd | least.simd_eq(0)).any_true() {
            break;
        }
        at += VECTORS * width;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The invariant by the letter: what may not be in a plain prefix that ends at `len`.
    fn is_plain(text: &[u8], len: usize) -> bool {
        let plain_at = |i: usize| {
            let (cr, next_lf) = (text[i] == b'\r', text.get(i + 1) == Some(&b'\n'));
            text[i] != 0 && cr == next_lf && !(next_lf && text.get(i + 2) == Some(&b'.'))
        };
        len == 0 || (text[0] != b'\n' && (0..len).all(plain_at))
    }

    #[test]
    fn one_bad_octet_anywhere_stops_before_it() {
        // Longer than a stride of the widest vectors, so that every place within one is tried.
        let line = [&[b'x'; 37][..], b"\r\n"].concat();
        let clean = line.repeat(40);
        let found = plain(&clean);
        assert!(found > clean.len() - 70 && is_plain(&clean, found), "{found} of {}", clean.len());
        for at in 0..1200 {
            for bad in [b'\r', b'\n', 0] {
                let mut text = clean.clone();
                text[at] = bad;
                let found = plain(&text);
                assert!(is_plain(&text, found), "{bad} at {at}: {found}");
                let unchanged = text == clean;
                assert!(unchanged || found <= at, "{bad} at {at}: {found}");
            }
            let mut text = clean.clone();
            text.splice(at..at, *b"\r\n.");
            assert!(plain(&text) <= at, "dot at {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_called_plain_is(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![&b"\r\n"[..], b"0123456789", b"\xff\xfe", b".", b"\t ", b"\r", b"\n", b"\0", b"\r\n."]),
                0..400,
            ),
            rare in proptest::bool::weighted(0.8),
        ) {
            let kept = parts.iter().enumerate().filter(|(i, part)| !rare || part.len() > 3 || i % 97 == 0);
            let text = kept.map(|(_, part)| *part).collect::<Vec<_>>().concat();
            proptest::prop_assert!(is_plain(&text, plain(&text)));
        }
    }
}

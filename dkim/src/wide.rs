//! How far a text goes without anything to look at, many octets at a time: [`tidy`] for line ends, [`canonical`] for the
//! blanks of a body.
//!
//! Invariant: the prefix that is found holds nothing that is looked for; it may be shorter than it could be, so whoever
//! asks goes on by smaller steps where it ends. The octet behind the prefix was read as what follows its last one.
//!
//! The widest vectors of the machine are chosen at run time (SSE2 to AVX-512, NEON, WebAssembly), by a crate whose
//! interface is safe.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};

/// Vectors in a stride, after which it is asked whether anything was found.
const VECTORS: usize = 8;

/// A prefix in which each CR is followed by LF, and each LF but the first octet follows a CR.
pub(crate) fn tidy(text: &[u8]) -> usize {
    dispatch!(Level::new(), simd => {
        walk(simd, text, |here, next| here.simd_eq(b'\r') ^ next.simd_eq(b'\n'))
    })
}

/// A prefix that `relaxed` leaves as it is: no TAB, and no SP before anything up to SP.
pub(crate) fn canonical(text: &[u8]) -> usize {
    dispatch!(Level::new(), simd => {
        walk(simd, text, |here, next| here.simd_eq(b'\t') | (here.simd_eq(b' ') & next.simd_le(b' ')))
    })
}

/// Whole strides in which `found` holds nowhere, for an octet and the next.
#[inline(always)]
fn walk<S: Simd>(simd: S, text: &[u8], found: impl Fn(S::u8s, S::u8s) -> S::mask8s) -> usize {
    let width = S::u8s::LEN;
    let none = S::u8s::splat(simd, 0).simd_eq(1);
    let mut at = 0;
    while let Some(stride) = text.get(at..).and_then(|rest| rest.get(..VECTORS * width + 1)) {
        let mut any = none;
        for start in (0..VECTORS).map(|vector| vector * width) {
            // In bounds, since the stride has an octet to spare.
            let read = |from: usize| S::u8s::from_slice(simd, &stride[from..from + width]);
            any |= found(read(start), read(start + 1));
        }
        if any.any_true() {
            break;
        }
        at += VECTORS * width;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_octet_anywhere_stops_before_it() {
        // Longer than two strides of the widest vectors.
        let clean = [&[b'x'; 37][..], b" y\r\n"].concat().repeat(50);
        assert!(tidy(&clean) >= 1024 && canonical(&clean) >= 1024);
        for at in 0..1100 {
            for (bad, finds_ends) in
                [(&b"\t"[..], false), (b"  ", false), (b" \r\n", false), (b"z\rz", true), (b"z\nz", true)]
            {
                let mut text = clean.clone();
                // Not inside a line end.
                let at = at + if text[at] == b'\n' { 1 } else { 0 };
                text.splice(at..at, bad.iter().copied());
                let find: fn(&[u8]) -> usize = if finds_ends { tidy } else { canonical };
                let (found, place) = (find(&text), at + usize::from(finds_ends && bad[1] == b'\r'));
                assert!(found <= place, "{bad:?} at {at}: {found}");
                assert!(found + 600 > place, "{bad:?} at {at}: {found} is far before it");
            }
        }
    }
}

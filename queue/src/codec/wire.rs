//! Numbers, strings and optional values as octets.
//!
//! Invariant: a [`Reader`] never reads past its end, never allocates more than its input is long, and never
//! panics. What a [`Writer`] writes, a reader of the same calls reads back.
//!
//! Not here: what the values mean.

use postwright_core::Timestamp;

use super::DecodeError;

/// Collects octets. Numbers are little-endian base 128 ("varint"), strings are preceded by their length.
#[derive(Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(octets: usize) -> Writer {
        Writer { out: Vec::with_capacity(octets) }
    }

    pub(crate) fn raw(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    pub(crate) fn len(&mut self, value: usize) {
        self.number(value as u64);
    }

    pub(crate) fn time(&mut self, at: Timestamp) {
        self.number(at.millis());
    }

    pub(crate) fn bytes(&mut self, octets: &[u8]) {
        self.len(octets.len());
        self.raw(octets);
    }

    pub(crate) fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn into_inner(self) -> Vec<u8> {
        self.out
    }
}

/// Reads what a [`Writer`] wrote, or says what is wrong with it.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, DecodeError>;

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    pub(crate) fn take(&mut self, octets: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(octets).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Read<u8> {
        let (byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn bool(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed("a flag")),
        }
    }

    pub(crate) fn number(&mut self) -> Read<u64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth octet has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a number"))
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Read<T> {
        T::try_from(self.number()?).map_err(|_| DecodeError::Malformed("a number out of range"))
    }

    /// A count of items that take at least one octet each: never more than what is left.
    pub(crate) fn count(&mut self) -> Read<usize> {
        let count: usize = self.small()?;
        if count > self.rest.len() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    pub(crate) fn time(&mut self) -> Read<Timestamp> {
        self.number().map(Timestamp::from_millis)
    }

    pub(crate) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Malformed("a text"))
    }

    pub(crate) fn parse<T: std::str::FromStr>(&mut self, what: &'static str) -> Read<T> {
        self.str()?.parse().map_err(|_| DecodeError::Malformed(what))
    }

    pub(crate) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn end(&self) -> Read<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("octets behind the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn values_come_back(number: u64, text: String, flag: bool, some: Option<u64>) {
            let mut writer = Writer::default();
            writer.number(number);
            writer.str(&text);
            writer.bool(flag);
            writer.option(some, Writer::number);
            let octets = writer.into_inner();
            let mut reader = Reader::new(&octets);
            assert_eq!(reader.number(), Ok(number));
            assert_eq!(reader.str(), Ok(&*text));
            assert_eq!(reader.bool(), Ok(flag));
            assert_eq!(reader.option(Reader::number), Ok(some));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(Reader::new(&[0xff; 9]).number(), Err(DecodeError::Truncated));
        assert!(matches!(Reader::new(&[0xff; 10]).number(), Err(DecodeError::Malformed(_))));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader::new(&most).number(), Ok(u64::MAX));
        assert_eq!(
            Reader::new(&[0x80, 2]).small::<u8>(),
            Err(DecodeError::Malformed("a number out of range"))
        );
        assert_eq!(Reader::new(&[200, 1, 0]).count(), Err(DecodeError::Truncated));
    }
}

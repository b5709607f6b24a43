//! How do keys become bytes that come in the keys' order?
//!
//! | type | bytes |
//! | --- | --- |
//! | `bool` | 0 or 1 |
//! | `u8` to `u128` | the number, its highest byte first |
//! | `i8` to `i128` | the same with the highest bit turned over, so that negative numbers come first |
//! | `char` | its number, as `u32` |
//! | `[u8; N]` | as they are |
//! | `String`, `Vec<u8>` | as they are with each 0 followed by 255, and two zeros at the end |
//! | `Option` | 0 for none; 1 and what is in it |
//! | tuples | one part after the other |
//!
//! Invariants:
//! 1. `a < b` if and only if the bytes of `a` are below those of `b`.
//! 2. No encoding is the beginning of another of the same type: so tuples come in the order of their parts.

/// A type whose values can be keys.
///
/// Who implements it for a type of his own keeps the two invariants of this module; a type that is a tuple with other names can use
/// the tuple's encoding.
pub trait Key: Sized {
    /// Appends the key's bytes: at least one, all of a record's key at most 4096.
    fn encode(&self, to: &mut Vec<u8>);

    /// Takes a key off the front of `from`; `None` where there is none of this type.
    fn decode(from: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*first)
}

macro_rules! numbers {
    ($($unsigned:ty, $signed:ty;)*) => {
        $(
            impl Key for $unsigned {
                fn encode(&self, to: &mut Vec<u8>) {
                    to.extend_from_slice(&self.to_be_bytes());
                }

                fn decode(from: &mut &[u8]) -> Option<Self> {
                    take(from).map(Self::from_be_bytes)
                }
            }

            impl Key for $signed {
                fn encode(&self, to: &mut Vec<u8>) {
                    (self.cast_unsigned() ^ (1 << (<$unsigned>::BITS - 1))).encode(to);
                }

                fn decode(from: &mut &[u8]) -> Option<Self> {
                    let turned = <$unsigned>::decode(from)?;
                    Some((turned ^ (1 << (<$unsigned>::BITS - 1))).cast_signed())
                }
            }
        )*
    };
}

numbers! {
    u8, i8;
    u16, i16;
    u32, i32;
    u64, i64;
    u128, i128;
}

impl Key for bool {
    fn encode(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        match u8::decode(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Key for char {
    fn encode(&self, to: &mut Vec<u8>) {
        u32::from(*self).encode(to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        Self::from_u32(u32::decode(from)?)
    }
}

impl<const N: usize> Key for [u8; N] {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        take(from)
    }
}

impl Key for Vec<u8> {
    fn encode(&self, to: &mut Vec<u8>) {
        encode_bytes(self, to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        let mut bytes = Self::new();
        loop {
            match u8::decode(from)? {
                0 => match u8::decode(from)? {
                    0 => return Some(bytes),
                    255 => bytes.push(0),
                    _ => return None,
                },
                byte => bytes.push(byte),
            }
        }
    }
}

fn encode_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    for byte in bytes {
        to.push(*byte);
        if *byte == 0 {
            to.push(255);
        }
    }
    to.extend_from_slice(&[0, 0]);
}

impl Key for String {
    fn encode(&self, to: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), to);
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::decode(from)?).ok()
    }
}

impl<K: Key> Key for Option<K> {
    fn encode(&self, to: &mut Vec<u8>) {
        self.is_some().encode(to);
        if let Some(key) = self {
            key.encode(to);
        }
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        if bool::decode(from)? { K::decode(from).map(Some) } else { Some(None) }
    }
}

macro_rules! tuples {
    ($($($part:ident $n:tt),+;)*) => {
        $(
            impl<$($part: Key),+> Key for ($($part,)+) {
                fn encode(&self, to: &mut Vec<u8>) {
                    $(self.$n.encode(to);)+
                }

                fn decode(from: &mut &[u8]) -> Option<Self> {
                    Some(($($part::decode(from)?,)+))
                }
            }
        )*
    };
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
}

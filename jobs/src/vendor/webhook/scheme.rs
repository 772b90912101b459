//! Hashes, keyed and plain, and the texts that signatures and secrets are written in. For what arrives: a
//! signature is computed to compare it with one that came. The hashes alone also sign what is sent.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::vendor::manifest::webhook::{Algorithm, Encoding, SecretForm};

/// The bytes of the longest hash, that of SHA-512.
const TAG_BYTES_MAX: usize = 64;
/// The longest text that can be a signature: SHA-512 in hex.
const TAG_CHARS_MAX: usize = 2 * TAG_BYTES_MAX;

/// Vendors differ in whether they write the `=` at the end.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A signature as bytes.
#[derive(Clone, Copy)]
pub(in crate::vendor) struct Tag {
    bytes: [u8; TAG_BYTES_MAX],
    len: usize,
}

impl Tag {
    fn of(bytes: &[u8]) -> Self {
        let mut tag = Self { bytes: [0; TAG_BYTES_MAX], len: bytes.len() };
        tag.bytes[..bytes.len()].copy_from_slice(bytes);
        tag
    }

    /// Its bytes.
    pub(in crate::vendor) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Reads a signature that came, in either case, with or without padding.
    pub(super) fn read(encoding: Encoding, text: &str) -> Option<Self> {
        let text = text.trim().as_bytes();
        if text.is_empty() || text.len() > TAG_CHARS_MAX {
            return None;
        }
        // Room for more than a tag, because the decoder asks for whole groups.
        let mut room = [0; TAG_CHARS_MAX];
        let len = match encoding {
            Encoding::Hex => {
                let len = text.len() / 2;
                hex::decode_to_slice(text, &mut room[..len]).ok().map(|()| len)
            }
            Encoding::Base64 => base64_engine(text).decode_slice(text, &mut room).ok(),
        };
        len.filter(|len| *len <= TAG_BYTES_MAX).map(|len| Self::of(&room[..len]))
    }

    /// In a time that depends on the lengths alone.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.bytes[..self.len].ct_eq(&other.bytes[..other.len]).into()
    }
}

fn base64_engine(text: &[u8]) -> &'static GeneralPurpose {
    if text.iter().any(|byte| matches!(byte, b'-' | b'_')) { &BASE64_URL } else { &BASE64 }
}

/// Whether two texts are the same, in a time that depends on their lengths alone.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// The HMAC of the parts, one after the other.
pub(in crate::vendor) fn keyed<'p>(
    algorithm: Algorithm,
    key: &[u8],
    parts: impl Iterator<Item = &'p [u8]>,
) -> Tag {
    match algorithm {
        Algorithm::Md5 => run_keyed::<Hmac<Md5>>(key, parts),
        Algorithm::Sha1 => run_keyed::<Hmac<Sha1>>(key, parts),
        Algorithm::Sha256 => run_keyed::<Hmac<Sha256>>(key, parts),
        Algorithm::Sha512 => run_keyed::<Hmac<Sha512>>(key, parts),
    }
}

/// The plain hash of the parts, one after the other.
pub(in crate::vendor) fn plain<'p>(algorithm: Algorithm, parts: impl Iterator<Item = &'p [u8]>) -> Tag {
    match algorithm {
        Algorithm::Md5 => run_plain::<Md5>(parts),
        Algorithm::Sha1 => run_plain::<Sha1>(parts),
        Algorithm::Sha256 => run_plain::<Sha256>(parts),
        Algorithm::Sha512 => run_plain::<Sha512>(parts),
    }
}

fn run_keyed<'p, M: Mac + KeyInit>(key: &[u8], parts: impl Iterator<Item = &'p [u8]>) -> Tag {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.for_each(|part| mac.update(part));
    Tag::of(&mac.finalize().into_bytes())
}

fn run_plain<'p, D: Digest>(parts: impl Iterator<Item = &'p [u8]>) -> Tag {
    let mut hash = D::new();
    parts.for_each(|part| hash.update(part));
    Tag::of(&hash.finalize())
}

/// A secret as the bytes that hashes take.
pub(super) enum SecretBytes<'s> {
    Text(&'s [u8]),
    Decoded(SecretSlice<u8>),
}

impl<'s> SecretBytes<'s> {
    /// Reads a secret; nothing where it is not written as the manifest says. Empty secrets are told by
    /// [`SecretBytes::expose`]: they never count.
    pub(super) fn read(secret: &'s SecretString, form: SecretForm, prefix: &str) -> Option<Self> {
        let text = secret.expose_secret();
        let text = text.strip_prefix(prefix).unwrap_or(text);
        let decoded = match form {
            SecretForm::Text => return Some(Self::Text(text.as_bytes())),
            SecretForm::Base64 => base64_engine(text.as_bytes()).decode(text.trim()).ok()?,
            SecretForm::Hex => hex::decode(text.trim()).ok()?,
        };
        Some(Self::Decoded(decoded.into()))
    }

    pub(super) fn expose(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Decoded(bytes) => bytes.expose_secret(),
        }
    }
}

/// `sha256:` and the hash in hex, for what has no name of its own.
pub(super) fn named_by_hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A text without its prefix, where it has it.
pub(super) fn without_prefix<'t>(text: Cow<'t, str>, prefix: &str) -> Cow<'t, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix(prefix).unwrap_or(text)),
        Cow::Owned(text) => match text.strip_prefix(prefix) {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => Cow::Owned(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag_of(algorithm: Algorithm, key: Option<&str>, text: &str) -> String {
        let (one, two) = text.split_at(text.len() / 2);
        let parts = [one.as_bytes(), two.as_bytes()].into_iter();
        let tag = match key {
            Some(key) => keyed(algorithm, key.as_bytes(), parts),
            None => plain(algorithm, parts),
        };
        hex::encode(&tag.bytes[..tag.len])
    }

    #[test]
    fn hashes_are_those_of_the_standards() {
        // RFC 1321, FIPS 180-4 and RFC 2202/4231, case 2.
        let fox = "what do ya want for nothing?";
        for (algorithm, key, text, expected) in [
            (Algorithm::Md5, None, "abc", "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, None, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Algorithm::Sha256,
                None,
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (Algorithm::Md5, Some("Jefe"), fox, "750c783e6ab0b503eaa86e310a5db738"),
            (Algorithm::Sha1, Some("Jefe"), fox, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                Algorithm::Sha256,
                Some("Jefe"),
                fox,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Algorithm::Sha512,
                Some("Jefe"),
                fox,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                 caeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            assert_eq!(tag_of(algorithm, key, text), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn a_signature_is_read_in_either_case_with_or_without_padding() {
        let bytes = [0xfb, 0xff, 0x3e, 0x01];
        for (encoding, text) in [
            (Encoding::Hex, "fbff3e01"),
            (Encoding::Hex, "FBFF3E01"),
            (Encoding::Hex, " fbFF3e01 "),
            (Encoding::Base64, "+/8+AQ=="),
            (Encoding::Base64, "+/8+AQ"),
            (Encoding::Base64, "-_8-AQ"),
        ] {
            let tag = Tag::read(encoding, text).unwrap();
            assert!(tag.equals(&Tag::of(&bytes)), "{text}");
            assert!(!tag.equals(&Tag::of(&bytes[..3])), "{text}");
        }
        let long = "a".repeat(TAG_CHARS_MAX + 2);
        for text in ["", " ", "fbf", "xx", &long, "é", "fbff3e0\u{0}"] {
            assert!(Tag::read(Encoding::Hex, text).is_none(), "{text}");
        }
        for text in ["", "=", "+/8+AR==", "+-8+", "a", &long[..TAG_CHARS_MAX]] {
            assert!(Tag::read(Encoding::Base64, text).is_none(), "{text}");
        }
    }

    #[test]
    fn secrets_are_read_as_they_are_written() {
        let read = |text: &str, form, prefix| {
            SecretBytes::read(&text.into(), form, prefix).map(|secret| secret.expose().to_vec())
        };
        assert_eq!(read("whsec_AAEC", SecretForm::Base64, "whsec_"), Some(vec![0, 1, 2]));
        assert_eq!(read("AAEC", SecretForm::Base64, "whsec_"), Some(vec![0, 1, 2]));
        assert_eq!(read("AAE", SecretForm::Base64, ""), Some(vec![0, 1]));
        assert_eq!(read("00FF", SecretForm::Hex, ""), Some(vec![0, 255]));
        assert_eq!(read("no base64!", SecretForm::Base64, ""), None);
        assert_eq!(read(" t ", SecretForm::Text, ""), Some(b" t ".to_vec()));
    }
}

//! Secrets at rest: XChaCha20-Poly1305 with the key's id inside, and the row they belong to as
//! associated data, so that sealed bytes moved to another row do not open.
//!
//! The envelope is `0x01 | key id (4 bytes, big endian) | nonce (24) | ciphertext and tag`. Several keys
//! may be given at once: the current one seals, all of them open, so keys can be changed while the
//! service runs. Nothing here ever puts a key or a plaintext into an error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The first byte of every envelope: a change of algorithm changes it.
const ENVELOPE_VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// Standard base64 whose padding may be left out, as key generators differ.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the vault cannot do. No text of it holds a key or a plaintext.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The list of keys is empty.
    #[error("no master key is given; expected `BASE64` or `1:BASE64,2:BASE64`, 32 bytes each")]
    NoKeys,
    /// One entry of the list is not a key.
    #[error(
        "master key {position} of the list is malformed: {why}; expected `ID:BASE64` with 32 bytes of base64"
    )]
    BadKey {
        /// Its place in the list, from 1.
        position: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two different keys have the same id.
    #[error("master key `{0}` is given twice; give every key an id of its own")]
    DuplicateKey(u32),
    /// The key that is to seal is not there.
    #[error("the current master key `{0}` is not among the keys given")]
    NoCurrentKey(u32),
    /// Something was sealed with a key that is not there.
    #[error("sealed with master key `{id}`, but only {known} is known; add key `{id}` to the master keys")]
    UnknownKey {
        /// The key it was sealed with.
        id: u32,
        /// The keys there are.
        known: String,
    },
    /// Not an envelope.
    #[error("the sealed bytes are malformed; expected an envelope that this program wrote")]
    Malformed,
    /// The key, the row or the bytes are not those of the sealing.
    #[error("the sealed bytes do not open with master key `{0}`: another key, another row, or changed bytes")]
    DoesNotOpen(u32),
    /// The cipher refused, which it does only for texts of many gigabytes.
    #[error("the text cannot be sealed")]
    CannotSeal,
}

/// The master keys. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Keys>);

struct Keys {
    by_id: BTreeMap<u32, SecretBox<[u8; KEY_BYTES]>>,
    current: u32,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.known()).field("current", &self.0.current).finish()
    }
}

impl Vault {
    /// A vault that opens with all of `keys` and seals with the one called `current`.
    pub fn new(keys: Vec<(u32, [u8; KEY_BYTES])>, current: u32) -> Result<Self, VaultError> {
        let mut by_id = BTreeMap::new();
        for (id, mut key) in keys {
            let kept = SecretBox::init_with_mut(|place: &mut [u8; KEY_BYTES]| place.copy_from_slice(&key));
            key.zeroize();
            if by_id.insert(id, kept).is_some() {
                return Err(VaultError::DuplicateKey(id));
            }
        }
        if by_id.is_empty() {
            return Err(VaultError::NoKeys);
        }
        if !by_id.contains_key(&current) {
            return Err(VaultError::NoCurrentKey(current));
        }
        Ok(Self(Arc::new(Keys { by_id, current })))
    }

    /// Reads `1:BASE64,2:BASE64`, or `BASE64` alone, which is key 1. The highest id is the current one.
    pub fn from_text(text: &SecretString) -> Result<Self, VaultError> {
        let mut keys = Vec::new();
        for (index, entry) in text.expose_secret().split(',').map(str::trim).enumerate() {
            if entry.is_empty() {
                continue;
            }
            keys.push(parse_key(entry).map_err(|why| VaultError::BadKey { position: index + 1, why })?);
        }
        let current = keys.iter().map(|(id, _)| *id).max().ok_or(VaultError::NoKeys)?;
        Self::new(keys, current)
    }

    /// Seals a text for one place, such as `external_systems/<id>/credentials`.
    pub fn seal(&self, plain: &SecretString, place: &str) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce);
        let payload = Payload { msg: plain.expose_secret().as_bytes(), aad: place.as_bytes() };
        let ciphertext = self
            .cipher(self.0.current)?
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| VaultError::CannotSeal)?;
        let mut sealed = vec![ENVELOPE_VERSION];
        sealed.extend(self.0.current.to_be_bytes());
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Ok(sealed)
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, sealed: &[u8], place: &str) -> Result<SecretString, VaultError> {
        let (id, rest) = key_id(sealed).ok_or(VaultError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Malformed)?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        let plain = self
            .cipher(id)?
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| VaultError::DoesNotOpen(id))?;
        let text = std::str::from_utf8(&plain).map_err(|_| VaultError::Malformed)?;
        Ok(SecretString::from(text))
    }

    /// Seals several named secrets as one.
    pub fn seal_map(&self, map: &BTreeMap<String, SecretString>, place: &str) -> Result<Vec<u8>, VaultError> {
        let exposed: BTreeMap<&str, &str> =
            map.iter().map(|(name, secret)| (name.as_str(), secret.expose_secret())).collect();
        let json = serde_json::to_string(&exposed).map_err(|_| VaultError::CannotSeal)?;
        self.seal(&SecretString::from(json), place)
    }

    /// Opens what [`Vault::seal_map`] sealed.
    pub fn open_map(&self, sealed: &[u8], place: &str) -> Result<BTreeMap<String, SecretString>, VaultError> {
        let json = self.open(sealed, place)?;
        let exposed: BTreeMap<String, String> =
            serde_json::from_str(json.expose_secret()).map_err(|_| VaultError::Malformed)?;
        Ok(exposed.into_iter().map(|(name, secret)| (name, SecretString::from(secret))).collect())
    }

    /// Something to know a text by that tells nothing of it to whoever has the database alone: a hash with the
    /// current key in it. Another key gives another one.
    pub fn fingerprint(&self, text: &str, place: &str) -> Result<String, VaultError> {
        let id = self.0.current;
        let key = self.0.by_id.get(&id).ok_or_else(|| VaultError::UnknownKey { id, known: self.known() })?;
        let mut hash = Sha256::new();
        hash.update(key.expose_secret());
        // With its length, so that no other pair of place and text gives the same bytes.
        hash.update((place.len() as u64).to_be_bytes());
        hash.update(place.as_bytes());
        hash.update(text.as_bytes());
        Ok(hex::encode(hash.finalize()))
    }

    /// Whether it was sealed with a key that is no longer the current one.
    #[must_use]
    pub fn needs_rewrap(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_none_or(|(id, _)| id != self.0.current)
    }

    fn cipher(&self, id: u32) -> Result<XChaCha20Poly1305, VaultError> {
        let key = self.0.by_id.get(&id).ok_or_else(|| VaultError::UnknownKey { id, known: self.known() })?;
        Ok(XChaCha20Poly1305::new(key.expose_secret().into()))
    }

    fn known(&self) -> String {
        self.0.by_id.keys().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
    }
}

/// A new random master key as base64.
#[must_use]
pub fn generate_key() -> SecretString {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut *key);
    SecretString::from(STANDARD.encode(*key))
}

/// The key id of an envelope, and what follows it.
fn key_id(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let (&version, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_first_chunk::<4>()?;
    (version == ENVELOPE_VERSION).then(|| (u32::from_be_bytes(*id), rest))
}

fn parse_key(entry: &str) -> Result<(u32, [u8; KEY_BYTES]), &'static str> {
    let (id, base64) = match entry.split_once(':') {
        Some((id, base64)) => (id.trim().parse().map_err(|_| "its id is not a whole number")?, base64.trim()),
        None => (1, entry),
    };
    let bytes = Zeroizing::new(KEY_BASE64.decode(base64).map_err(|_| "it is not base64")?);
    let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| "it is not 32 bytes long")?;
    Ok((id, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "external_systems/42/credentials";

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn old() -> Vault {
        Vault::new(vec![(1, [7; 32])], 1).unwrap()
    }

    fn rotated() -> Vault {
        Vault::new(vec![(1, [7; 32]), (2, [9; 32])], 2).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_and_is_not_readable() {
        for plain in ["", "hunter2", "密钥-🔑", &"x".repeat(100_000)] {
            let sealed = old().seal(&secret(plain), PLACE).unwrap();
            assert_eq!(old().open(&sealed, PLACE).unwrap().expose_secret(), plain);
            assert!(plain.is_empty() || !sealed.windows(plain.len()).any(|part| part == plain.as_bytes()));
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let seal = || old().seal(&secret("hunter2"), PLACE).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_fingerprint_knows_its_text_its_place_and_its_key() {
        let of = |vault: Vault, text: &str, place: &str| vault.fingerprint(text, place).unwrap();
        assert_eq!(of(old(), "wang", "names"), of(old(), "wang", "names"));
        assert_ne!(of(old(), "wang", "names"), of(old(), "li", "names"));
        assert_ne!(of(old(), "wang", "names"), of(old(), "gnames", "nam"));
        assert_ne!(of(old(), "wang", "names"), of(rotated(), "wang", "names"));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let sealed = old().seal(&secret("hunter2"), PLACE).unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                assert!(old().open(&changed, PLACE).is_err(), "byte {index} bit {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert!(old().open(&sealed[..length], PLACE).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_moved_row_does_not_open() {
        let sealed = old().seal(&secret("hunter2"), PLACE).unwrap();
        let moved = old().open(&sealed, "external_systems/43/credentials");
        assert_eq!(moved.unwrap_err(), VaultError::DoesNotOpen(1));
    }

    #[test]
    fn keys_can_be_changed_while_old_secrets_still_open() {
        let sealed = old().seal(&secret("hunter2"), PLACE).unwrap();
        assert!(!old().needs_rewrap(&sealed));
        assert!(rotated().needs_rewrap(&sealed));

        let opened = rotated().open(&sealed, PLACE).unwrap();
        let resealed = rotated().seal(&opened, PLACE).unwrap();
        assert!(!rotated().needs_rewrap(&resealed));
        let refused = old().open(&resealed, PLACE).unwrap_err();
        assert_eq!(refused, VaultError::UnknownKey { id: 2, known: "`1`".into() });
        assert!(rotated().needs_rewrap(b"not an envelope"));
    }

    #[test]
    fn another_key_of_the_same_id_does_not_open() {
        let sealed = old().seal(&secret("hunter2"), PLACE).unwrap();
        let other = Vault::new(vec![(1, [8; 32])], 1).unwrap();
        assert_eq!(other.open(&sealed, PLACE).unwrap_err(), VaultError::DoesNotOpen(1));
    }

    #[test]
    fn several_secrets_are_sealed_as_one() {
        let map = BTreeMap::from([
            ("api_key".to_owned(), secret("k-1")),
            ("api_secret".to_owned(), secret("s \"2\" 密")),
        ]);
        let sealed = old().seal_map(&map, PLACE).unwrap();
        let opened = old().open_map(&sealed, PLACE).unwrap();
        let exposed = |map: &BTreeMap<String, SecretString>| {
            map.iter()
                .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(exposed(&opened), exposed(&map));
        let single = old().seal(&secret("not a map"), PLACE).unwrap();
        assert_eq!(old().open_map(&single, PLACE).unwrap_err(), VaultError::Malformed);
    }

    #[test]
    fn keys_are_read_from_text() {
        let (one, two) = (STANDARD.encode([7; 32]), STANDARD.encode([9; 32]));
        let sealed = old().seal(&secret("hunter2"), PLACE).unwrap();
        for text in [
            one.clone(),
            format!(" {one}\n"),
            one.trim_end_matches('=').to_owned(),
            format!("1:{one}"),
            format!("2:{two}, 1:{one},"),
        ] {
            let vault = Vault::from_text(&secret(&text)).unwrap();
            assert_eq!(vault.open(&sealed, PLACE).unwrap().expose_secret(), "hunter2", "{text}");
        }
        let both = Vault::from_text(&secret(&format!("2:{two},1:{one}"))).unwrap();
        assert!(both.needs_rewrap(&sealed), "the highest id is the current key");

        let generated = Vault::from_text(&generate_key()).unwrap();
        let sealed = generated.seal(&secret("x"), PLACE).unwrap();
        assert_eq!(generated.open(&sealed, PLACE).unwrap().expose_secret(), "x");
        assert_ne!(generate_key().expose_secret(), generate_key().expose_secret());
    }

    #[test]
    fn bad_keys_are_named_without_being_shown() {
        let key = STANDARD.encode([7; 32]);
        for (text, expected) in [
            (String::new(), VaultError::NoKeys),
            (" , ".into(), VaultError::NoKeys),
            ("hunter2!".into(), VaultError::BadKey { position: 1, why: "it is not base64" }),
            ("c2hvcnQ=".into(), VaultError::BadKey { position: 1, why: "it is not 32 bytes long" }),
            (
                format!("1:{key},two:{key}"),
                VaultError::BadKey { position: 2, why: "its id is not a whole number" },
            ),
            (format!("1:{key},1:{key}"), VaultError::DuplicateKey(1)),
        ] {
            let error = Vault::from_text(&secret(&text)).unwrap_err();
            assert_eq!(error, expected);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && !shown.contains(&key), "{shown}");
        }
        assert_eq!(Vault::new(vec![(1, [0; 32])], 2).unwrap_err(), VaultError::NoCurrentKey(2));
        assert_eq!(Vault::new(vec![], 1).unwrap_err(), VaultError::NoKeys);
    }

    #[test]
    fn a_vault_does_not_print_its_keys() {
        assert_eq!(format!("{:?}", rotated()), r#"Vault { keys: "`1`, `2`", current: 2 }"#);
    }
}

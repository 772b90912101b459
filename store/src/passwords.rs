//! Passwords and tokens of people and machines: only a slow hash of the one and a SHA-256 of the
//! other are ever stored.

use std::sync::LazyLock;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The least number of characters of a password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// The most bytes of a password, so that nobody makes us hash a book.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// What an API token begins with, so that people and scanners know one when they see it.
pub const API_TOKEN_PREFIX: &str = "zls_";
/// The characters of a session's token: 256 bits in base64.
const TOKEN_CHARS: usize = 43;

/// OWASP's second choice: 19 MiB and two passes take some 20 ms and fit two at a time in a small
/// machine.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A hash of the same cost that no password has: verified when there is no such user, so that the
/// time of the answer does not tell which names exist.
const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static ARGON2: LazyLock<Argon2<'static>> = LazyLock::new(|| {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
});

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Below [`PASSWORD_CHARS_MIN`].
    #[error("the password is too short; expected at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Above [`PASSWORD_BYTES_MAX`].
    #[error("the password is too long; expected at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// The machine gave no memory or no random numbers.
    #[error("the password cannot be hashed on this machine")]
    CannotHash,
}

/// The hash to store. Takes tens of milliseconds and 19 MiB: call it on a thread that may block.
pub fn hash(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.expose_secret();
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(PasswordError::TooShort);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    ARGON2
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| PasswordError::CannotHash)
}

/// Whether it is the password of this hash. As slow as [`hash`].
#[must_use]
pub fn verify(password: &SecretString, stored: &str) -> bool {
    let password = password.expose_secret();
    password.len() <= PASSWORD_BYTES_MAX
        && PasswordHash::new(stored)
            .is_ok_and(|stored| ARGON2.verify_password(password.as_bytes(), &stored).is_ok())
}

/// Takes the time of [`verify`] and says no: for a user who does not exist.
#[must_use]
pub fn verify_nobody(password: &SecretString) -> bool {
    verify(password, DUMMY)
}

/// A new bearer token of 256 random bits, and what is stored of it.
#[must_use]
pub fn new_token() -> (SecretString, [u8; 32]) {
    let mut random = Zeroizing::new([0_u8; 32]);
    rand::fill(&mut *random);
    let token = URL_SAFE_NO_PAD.encode(*random);
    let hash = token_hash(&token);
    (SecretString::from(token), hash)
}

/// A new API token, which says what it is, and what is stored of it.
#[must_use]
pub fn new_api_token() -> (SecretString, [u8; 32]) {
    let (random, _) = new_token();
    let token = Zeroizing::new([API_TOKEN_PREFIX, random.expose_secret()].concat());
    let hash = token_hash(&token);
    (SecretString::from(token.as_str()), hash)
}

/// Whether a text has the form of an API token. A session's token, which is as random, may begin alike, but
/// it is shorter.
#[must_use]
pub fn is_api_token(text: &str) -> bool {
    text.len() > TOKEN_CHARS && text.starts_with(API_TOKEN_PREFIX)
}

/// What is stored of a token. It needs no salt and no slowness: a token cannot be guessed.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_verified_by_its_hash() {
        let password = SecretString::from("correct horse 电池");
        let stored = hash(&password).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(&password, &stored));
        assert!(!verify(&SecretString::from("correct horse"), &stored));
        assert_ne!(stored, hash(&password).unwrap(), "every hash has a salt of its own");
        assert!(!verify(&password, "not a hash"));
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert_eq!(hash(&SecretString::from("seven77")), Err(PasswordError::TooShort));
        assert!(hash(&SecretString::from("八个汉字也算密码")).is_ok(), "characters count, not bytes");
        assert_eq!(hash(&SecretString::from("x".repeat(1025))), Err(PasswordError::TooLong));
    }

    #[test]
    fn an_unknown_user_costs_the_time_of_a_known_one() {
        let password = SecretString::from("whatever it is");
        let stored = hash(&password).unwrap();
        let parsed = |text| PasswordHash::new(text).unwrap();
        assert_eq!(parsed(DUMMY).params, parsed(&stored).params);
        assert!(!verify_nobody(&password));
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (token, hash) = new_token();
        assert_eq!(token.expose_secret().len(), TOKEN_CHARS);
        assert!(!is_api_token(token.expose_secret()));
        assert_eq!(token_hash(token.expose_secret()), hash);
        assert_ne!(new_token().1, hash);
        let (token, hash) = new_api_token();
        assert!(is_api_token(token.expose_secret()));
        assert_eq!(token_hash(token.expose_secret()), hash);
        assert_eq!(
            hex::encode(token_hash("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

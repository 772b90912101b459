//! What the signature of a request or webhook should be, by the vendor's document alone.
//!
//! A simulated vendor asks here whether a request is signed, and signs here what it sends. None of
//! this is shared with the client that signs or with the receiver that verifies: a rule misread on
//! both sides alike would pass unseen. Only the hashes are the same crates. Each function looks at
//! what arrived, decoded as any server decodes it, and never at what the client meant to send.
//!
//! | vendor | what is hashed | hash |
//! |---|---|---|
//! | Pinzhi | sorted `name=value` with `&`, then `&token=` and the token | MD5 |
//! | Aoqiwei supply chain | sorted `name=value` with `&`, the secret glued on | MD5 |
//! | Aoqiwei members | the JSON of `req` as PHP writes a query, then four parameters | MD5 |
//! | Keruyun | names glued to values in a fixed order, the body, a secret or token | SHA-256 |
//! | Meituan Waimai | the address, `?`, sorted `name=value` with `&`, the secret glued on | MD5 |
//! | Meituan catering | the key, then sorted names glued to values | SHA-1 |

pub mod aoqiwei_crm;
pub mod aoqiwei_scm;
pub mod keruyun;
pub mod meituan;
pub mod pinzhi;
pub mod webhooks;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// Names and values, percent-decoded, in the order in which they came.
pub type Pairs = [(String, String)];

/// A request as it arrived, as far as any vendor signs it.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The address that was called, without its query.
    pub url: &'a str,
    /// The parameters behind the address.
    pub query: &'a Pairs,
    /// The parameters of a form; none where the body is something else.
    pub form: &'a Pairs,
    /// The body, byte by byte.
    pub body: &'a [u8],
}

impl Arrived<'_> {
    /// All parameters, those of the query first.
    fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().chain(self.form).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of the first parameter of this name.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

/// The parameters of a query or a form, decoded as `application/x-www-form-urlencoded`.
#[must_use]
pub fn decode(encoded: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

/// Parameters in the order of the bytes of their names.
fn sorted<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut sorted: Vec<_> = parameters.collect();
    sorted.sort_unstable();
    sorted
}

/// `a=1&b=2`, nothing encoded.
fn joined(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn md5_hex(text: impl AsRef<[u8]>) -> String {
    hex::encode(Md5::digest(text))
}

fn sha1_hex(text: impl AsRef<[u8]>) -> String {
    hex::encode(Sha1::digest(text))
}

fn sha256_hex(text: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(text))
}

/// The HMAC-SHA-256 of all parts, one behind the other.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// The HMAC-SHA-1 of a text.
fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("an HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all rules need: owned parameters, and every way to flip one byte of them.

    /// Owned parameters of borrowed ones.
    pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The text with its last character exchanged for another.
    pub(crate) fn flipped(text: &str) -> String {
        let mut text = text.to_owned();
        let other = if text.pop() == Some('7') { '8' } else { '7' };
        text.push(other);
        text
    }

    /// The parameters, once for each of those named, with that one's value flipped.
    pub(crate) fn each_flipped(parameters: &[(String, String)]) -> Vec<(String, Vec<(String, String)>)> {
        (0..parameters.len())
            .map(|at| {
                let mut changed = parameters.to_vec();
                changed[at].1 = flipped(&changed[at].1);
                (changed[at].0.clone(), changed)
            })
            .collect()
    }
}

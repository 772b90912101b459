//! Secrets that are made here or entered by people, in the form that the vendor's manifest reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::WebhookSpec;
use super::scheme::SecretBytes;
use crate::vendor::manifest::webhook::{Place, Scheme, SecretForm};

/// As many as the strongest of the usual hashes takes without loss, and more than anybody guesses.
const SECRET_BYTES: usize = 32;

impl WebhookSpec {
    /// A new secret, as this vendor's secrets are written. It needs no escaping in an address.
    #[must_use]
    pub fn new_secret(&self) -> SecretString {
        let random: [u8; SECRET_BYTES] = rand::random();
        let text = match self.verification.secret_form {
            SecretForm::Text | SecretForm::Hex => hex::encode(random),
            SecretForm::Base64 => STANDARD.encode(random),
        };
        SecretString::from(format!("{}{text}", self.verification.secret_prefix))
    }

    /// Whether a secret is written as this vendor's are, so that it can ever verify anything.
    #[must_use]
    pub fn reads_secret(&self, secret: &SecretString) -> bool {
        let verification = &self.verification;
        let read = SecretBytes::read(secret, verification.secret_form, &verification.secret_prefix);
        read.is_some_and(|bytes| !bytes.expose().is_empty())
    }

    /// The parameter of the address in which the secret stands, for a vendor that signs nothing.
    #[must_use]
    pub fn secret_parameter(&self) -> Option<&str> {
        match (&self.verification.scheme, self.verification.signature.first()) {
            (Scheme::Code, Some(Place::Query(name))) => Some(name),
            _ => None,
        }
    }
}

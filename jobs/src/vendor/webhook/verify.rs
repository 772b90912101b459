//! Whether the vendor sent it. The signature is computed anew with every secret that counts and compared
//! with those that came, in constant time; only then the timestamp is held against the time of receipt, so
//! that an operator learns that a signature was right but old.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};

use super::open::{VALUES_MAX, View};
use super::scheme::{self, SecretBytes, Tag, without_prefix};
use super::{Delivery, Refusal, Secrets, sorted};
use crate::vendor::manifest::webhook::{
    ContentPart, Place, Scheme, SecretPlace, SignatureList, TimestampForm, Verification, WebhookSpec,
};

/// What the request says about itself.
struct Claim<'v> {
    signatures: Vec<Cow<'v, str>>,
    timestamp: Option<Cow<'v, str>>,
    id: Option<Cow<'v, str>>,
}

/// Whether one of the secrets signed this delivery.
pub(super) fn verify(spec: &WebhookSpec, delivery: &Delivery<'_>, secrets: &Secrets) -> Result<(), Refusal> {
    let of = &spec.verification;
    if matches!(of.scheme, Scheme::None) {
        let problem = "this vendor signs nothing; release the event, or say `webhook_verification` `none`";
        return Err(Refusal::new("not_signed", problem));
    }
    let keys = usable(of, secrets)?;
    let view = View::new(spec, delivery, of.places())?;
    let claim = Claim::read(of, &view)?;
    if let Scheme::Code = of.scheme {
        let right = keys
            .iter()
            .any(|key| claim.signatures.iter().any(|code| scheme::same(key.expose(), code.as_bytes())));
        return if right { in_time(of, &claim, delivery.received_at) } else { Err(mismatch(of)) };
    }
    let tags: Vec<Tag> = claim.signatures.iter().filter_map(|text| Tag::read(of.encoding, text)).collect();
    if tags.is_empty() {
        let problem = format!("the signature is not written in {}", of.encoding.word());
        return Err(Refusal::new("signature_malformed", problem));
    }
    let signed = |tag: Tag| tags.iter().any(|came| came.equals(&tag));
    let right = match &of.scheme {
        Scheme::Hmac { algorithm, content } => keys
            .iter()
            .any(|key| signed(scheme::keyed(*algorithm, key.expose(), claim.parts(content, delivery)))),
        Scheme::Digest { algorithm, content, secret } => keys.iter().any(|key| {
            let key = || [key.expose()].into_iter();
            let parts = || claim.parts(content, delivery);
            signed(match secret {
                SecretPlace::Before => scheme::plain(*algorithm, key().chain(parts())),
                SecretPlace::After => scheme::plain(*algorithm, parts().chain(key())),
                SecretPlace::Both => scheme::plain(*algorithm, key().chain(parts()).chain(key())),
                SecretPlace::Key => scheme::keyed(*algorithm, key().next().unwrap_or_default(), parts()),
            })
        }),
        Scheme::SortedParameters(sorted) => {
            let content = sorted::content(sorted, delivery)?;
            keys.iter().any(|key| signed(sorted::sign(sorted, &content, key.expose())))
        }
        Scheme::Code | Scheme::None => false,
    };
    if right { in_time(of, &claim, delivery.received_at) } else { Err(mismatch(of)) }
}

/// The secrets that can sign: an empty one never does.
fn usable<'s>(of: &Verification, secrets: &'s Secrets) -> Result<Vec<SecretBytes<'s>>, Refusal> {
    let mut unreadable = false;
    let mut keys = Vec::with_capacity(secrets.len());
    for secret in secrets.values() {
        match SecretBytes::read(secret, of.secret_form, &of.secret_prefix) {
            Some(key) if key.expose().is_empty() => {}
            Some(key) => keys.push(key),
            None => unreadable = true,
        }
    }
    match keys.is_empty() {
        false => Ok(keys),
        true if unreadable => {
            let problem = format!("the secret is not written in {}; enter it anew", of.secret_form.word());
            Err(Refusal::new("secret_unusable", problem))
        }
        true => Err(Refusal::new(
            "secret_missing",
            "the system has no webhook secret; enter the vendor's, then verify again",
        )),
    }
}

impl Verification {
    /// Everywhere that a verification looks.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.signature.iter().chain(&self.timestamp).chain(&self.id)
    }

    fn signs(&self, part: &ContentPart) -> bool {
        match &self.scheme {
            Scheme::Hmac { content, .. } | Scheme::Digest { content, .. } => content.contains(part),
            _ => false,
        }
    }
}

impl<'v> Claim<'v> {
    fn read(of: &Verification, view: &'v View<'_>) -> Result<Self, Refusal> {
        let mut claim = Self { signatures: Vec::new(), timestamp: None, id: None };
        let values = view.all(&of.signature);
        if values.is_empty() {
            let problem = format!("there is no signature in {}", shown(&of.signature));
            return Err(Refusal::new("signature_missing", problem));
        }
        for value in values {
            match &of.list {
                None => claim.signatures.push(without_prefix(value, &of.prefix)),
                Some(list) => claim.take_list(list, &value, &of.prefix)?,
            }
        }
        claim.signatures.truncate(VALUES_MAX);
        if claim.signatures.is_empty() {
            let problem = format!("no signature of a known kind is in {}", shown(&of.signature));
            return Err(Refusal::new("signature_missing", problem));
        }
        let twice = |what: &str| Refusal::new("ambiguous", format!("there are several different {what}s"));
        if claim.timestamp.is_none() {
            claim.timestamp = view.only(&of.timestamp).map_err(|()| twice("timestamp"))?;
        }
        claim.id = view.only(&of.id).map_err(|()| twice("id"))?;
        if of.has_timestamp() && claim.timestamp.is_none() {
            let problem = format!("there is no timestamp in {}", of.timestamp_place());
            return Err(Refusal::new("timestamp_missing", problem));
        }
        if claim.id.is_none() && of.signs(&ContentPart::Id) {
            return Err(Refusal::new("id_missing", format!("there is no id in {}", shown(&of.id))));
        }
        Ok(claim)
    }

    fn take_list(&mut self, list: &SignatureList, value: &str, prefix: &str) -> Result<(), Refusal> {
        let taken = |text: &str| Cow::Owned(without_prefix(Cow::Borrowed(text), prefix).into_owned());
        match list {
            SignatureList::Pairs { separator, keys, timestamp_key } => {
                for element in value.split(separator.as_str()) {
                    let Some((key, text)) = element.trim().split_once('=') else { continue };
                    if timestamp_key.as_deref() == Some(key) {
                        if self.timestamp.as_deref().is_some_and(|before| before != text) {
                            let problem = "there are several different timestamps";
                            return Err(Refusal::new("ambiguous", problem));
                        }
                        self.timestamp = Some(Cow::Owned(text.to_owned()));
                    } else if self.signatures.len() < VALUES_MAX && keys.iter().any(|known| known == key) {
                        self.signatures.push(taken(text));
                    }
                }
            }
            SignatureList::Versions { separator, keys, join } => {
                for element in value.split(separator.as_str()) {
                    if self.signatures.len() < VALUES_MAX
                        && let Some((version, text)) = element.trim().split_once(join.as_str())
                        && keys.iter().any(|known| known == version)
                    {
                        self.signatures.push(taken(text));
                    }
                }
            }
        }
        Ok(())
    }

    /// The pieces of what is signed, without a copy of the body.
    fn parts<'p>(
        &'p self,
        content: &'p [ContentPart],
        delivery: &'p Delivery<'_>,
    ) -> impl Iterator<Item = &'p [u8]> {
        let text = |text: &'p Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().as_bytes();
        content.iter().map(move |part| match part {
            ContentPart::Text(text) => text.as_bytes(),
            ContentPart::Body => delivery.body,
            ContentPart::Url => delivery.url.as_bytes(),
            ContentPart::Timestamp => text(&self.timestamp),
            ContentPart::Id => text(&self.id),
        })
    }
}

/// Whether the timestamp is near enough to the time of receipt.
fn in_time(of: &Verification, claim: &Claim<'_>, received_at: DateTime<Utc>) -> Result<(), Refusal> {
    let Some(text) = claim.timestamp.as_deref().filter(|_| of.has_timestamp()) else {
        return Ok(());
    };
    let Some(time) = read_time(of.timestamp_form, text) else {
        let problem = format!("the timestamp is not written as `{}`", of.timestamp_form.word());
        return Err(Refusal::new("timestamp_malformed", problem));
    };
    let apart = (received_at - time).abs();
    if apart <= TimeDelta::from_std(of.tolerance).unwrap_or(TimeDelta::MAX) {
        return Ok(());
    }
    let (secs, tolerance) = (apart.num_seconds(), of.tolerance.as_secs());
    let problem =
        format!("the timestamp is {secs} s from the time of receipt; at most {tolerance} s are allowed");
    Err(Refusal::new("timestamp_outside_window", problem))
}

fn read_time(form: TimestampForm, text: &str) -> Option<DateTime<Utc>> {
    let number = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match form {
        TimestampForm::Unix => DateTime::from_timestamp(number()?, 0),
        TimestampForm::UnixMs => DateTime::from_timestamp_millis(number()?),
        TimestampForm::Rfc3339 => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
    }
}

fn mismatch(of: &Verification) -> Refusal {
    let problem = match of.scheme {
        Scheme::Code => "the code is not the system's webhook secret; compare it with the vendor's",
        _ => {
            "the signature is not ours: compare the webhook secret, and the registered URL, with the vendor's"
        }
    };
    Refusal::new("signature_mismatch", problem)
}

fn shown(places: &[Place]) -> String {
    let places = places.iter().map(|place| match place {
        Place::Header(name) => format!("the header `{name}`"),
        Place::Query(name) => format!("the query parameter `{name}`"),
        Place::Body(_) => "the body".to_owned(),
    });
    places.collect::<Vec<_>>().join(" or ")
}

impl Verification {
    fn has_timestamp(&self) -> bool {
        !self.timestamp.is_empty()
            || matches!(&self.list, Some(SignatureList::Pairs { timestamp_key: Some(_), .. }))
    }

    fn timestamp_place(&self) -> String {
        shown(if self.timestamp.is_empty() { &self.signature } else { &self.timestamp })
    }
}

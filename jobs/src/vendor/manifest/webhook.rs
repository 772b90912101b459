//! What a vendor sends of its own accord, as the manifest says it: `[webhook]`. This file holds who sent
//! it and how that is proved, what identifies an event, and what the vendor wants to hear; what the
//! events mean is in `routes`. `vendor/webhook.rs` acts on both.

pub(in crate::vendor::manifest) mod read;
pub(in crate::vendor) mod routes;
pub(in crate::vendor::manifest) mod verification;

use std::time::Duration;

use http::{HeaderName, Method};

use self::routes::Route;
use crate::vendor::expression::Expression;
use crate::vendor::path::Path;
use crate::vendor::webhook::reply::ReplySpec;

/// What a vendor sends of its own accord.
#[derive(Debug)]
pub struct WebhookSpec {
    pub(crate) verification: Verification,
    pub(crate) body: BodyForm,
    /// Every place in a body that a [`Place`] speaks of: one walk over the body finds them all.
    pub(crate) body_paths: Vec<Path>,
    /// Alternatives, each made of one place or of several that are joined.
    pub(crate) event_key: Vec<Vec<Place>>,
    pub(crate) event_type: Vec<Place>,
    pub(crate) handshakes: Vec<Handshake>,
    pub(crate) replies: Replies,
    pub(crate) routes: Vec<Route>,
    pub(crate) ack_deadline: Duration,
    pub(crate) retry_window: Option<Duration>,
}

/// How a body is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    /// `a=1&b=2`; every member is text.
    Form,
    /// The same, and this member is JSON.
    FormJson(String),
}

/// Where a value stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Header(HeaderName),
    Query(String),
    /// The one of [`WebhookSpec::body_paths`] with this number.
    Body(usize),
}

impl Place {
    /// The name of the query's parameter that is meant.
    pub(crate) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Header(_) | Self::Body(_) => None,
        }
    }
}

/// How a request proves who sent it.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) scheme: Scheme,
    /// Where the signature is; the first place that has one counts.
    pub(crate) signature: Vec<Place>,
    /// Stands before the signature, and is taken off.
    pub(crate) prefix: String,
    pub(crate) list: Option<SignatureList>,
    pub(crate) encoding: Encoding,
    pub(crate) timestamp: Vec<Place>,
    pub(crate) timestamp_form: TimestampForm,
    /// How far the timestamp may be from the time of receipt, in both directions.
    pub(crate) tolerance: Duration,
    pub(crate) id: Vec<Place>,
    pub(crate) secret_form: SecretForm,
    /// Stands before the secret, and is taken off.
    pub(crate) secret_prefix: String,
}

/// See [`Verification`].
#[derive(Debug)]
pub(crate) enum Scheme {
    /// A keyed hash (RFC 2104).
    Hmac { algorithm: Algorithm, content: Vec<ContentPart> },
    /// A plain hash of content and secret.
    Digest { algorithm: Algorithm, content: Vec<ContentPart>, secret: SecretPlace },
    /// A hash of all parameters in the order of their names.
    SortedParameters(Sorted),
    /// The secret itself is sent, in a header or in the URL.
    Code,
    /// The vendor signs nothing.
    None,
}

/// The parameters that are signed, and how they are written for it.
#[derive(Debug)]
pub(crate) struct Sorted {
    pub(crate) algorithm: Algorithm,
    pub(crate) from: SortedFrom,
    /// Parameters that take no part; the signature's own is among them.
    pub(crate) exclude: Vec<String>,
    pub(crate) drop_empty: bool,
    pub(crate) nested: Nested,
    pub(crate) pair: Vec<PairPart>,
    pub(crate) join: String,
    pub(crate) secret: SecretPlace,
    /// Stands between the parameters and the secret.
    pub(crate) secret_join: String,
    /// Whether the URL and `?` come first.
    pub(crate) url_first: bool,
}

/// See [`Sorted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortedFrom {
    /// The members of a JSON object.
    Body,
    Form,
    Query,
}

/// What becomes of members of a JSON body that are lists or objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nested {
    /// The signature counts as wrong: part of the body would be unsigned.
    Refuse,
    /// They take no part: anybody who sees one event could change them.
    Skip,
}

/// A part of `pair`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PairPart {
    Text(String),
    Name,
    Value,
}

/// Where the secret goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    Before,
    After,
    Both,
    /// It is the key of an HMAC.
    Key,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentPart {
    Text(String),
    Body,
    Url,
    Timestamp,
    Id,
}

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    Base64,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretForm {
    Text,
    Base64,
    Hex,
}

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampForm {
    Unix,
    UnixMs,
    Rfc3339,
}

/// Several signatures in one text.
#[derive(Debug)]
pub(crate) enum SignatureList {
    /// `t=1492774577,v1=5257a8…,v1=…`
    Pairs { separator: String, keys: Vec<String>, timestamp_key: Option<String> },
    /// `v1,K5oZ… v1a,hnO3…`
    Versions { separator: String, keys: Vec<String>, join: String },
}

/// A request that is answered and means nothing else.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) method: Method,
    pub(crate) when: Option<Expression>,
    pub(crate) reply: ReplySpec,
    /// Whether it must be signed like an event.
    pub(crate) verified: bool,
}

/// What the vendor wants to hear; where nothing is said, ours.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) accepted: Option<ReplySpec>,
    pub(crate) refused: Option<ReplySpec>,
    pub(crate) busy: Option<ReplySpec>,
    pub(crate) full: Option<ReplySpec>,
    pub(crate) bad_body: Option<ReplySpec>,
}

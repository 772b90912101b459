//! What a failed call means for a run, and what a person reads about it. The only place that decides:
//!
//! | what happened | the run |
//! |---|---|
//! | 401, or the manifest's rule, with an access token | goes on with a new token, once |
//! | 401, 403 | ends; the system goes to `error` until somebody mends the credentials |
//! | 400, 404, 422 and other 4xx | ends: repeating changes nothing |
//! | 408, 425, 429, 5xx | is tried again, after the vendor's Retry-After where it gives one |
//! | time-out, no connection, a cut-off body | is tried again |
//! | 200, but HTML or broken JSON | is tried again: a proxy's page passes, as a rule |
//! | 200, but the success rule says no | is tried again, unless a rule of `failures` says otherwise |
//! | an answer over the cap, a private address, a redirect to another host | ends |

use std::error::Error;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::super::guard::Refused;
use super::super::manifest::FailureOutcome;
use super::super::{json, path, template};
use super::Connection;
use super::call::Answer;
use crate::outcome::{Action, JobError};

/// The access token is not good any more, or never was: worth another one, once.
pub(super) const TOKEN_REFUSED: &str = "token_refused";
/// What was asked for does not exist.
pub(super) const NOT_FOUND: &str = "vendor_not_found";
/// What speaks of one record alone, however often it is asked for.
const OF_ONE_RECORD: [&str; 4] = [NOT_FOUND, "vendor_refused", "vendor_error", "record_missing"];
/// How much of a vendor's own words an error repeats.
const WORDS_CHARS_MAX: usize = 200;

impl Connection {
    /// The call did not end in an answer.
    pub(super) fn failed_call(&self, error: reqwest::Error, url: &Url) -> JobError {
        let error = error.without_url();
        if let Some(refused) = cause::<Refused>(&error) {
            return self.refused(refused);
        }
        let title = &self.manifest.title;
        let at = self.shown(url);
        let root = self.redact(&root_cause(&error));
        let settings = &self.inner.settings;
        let failed = if error.is_connect() {
            let fix = "check `api_endpoint` and the network";
            JobError::retry("vendor_unreachable", format!("{title} cannot be reached at {at}: {root}; {fix}"))
        } else if error.is_timeout() {
            let secs = settings.timeout_secs;
            JobError::retry(
                "vendor_timeout",
                format!("{title} did not answer in time at {at} (at most {secs} s)"),
            )
        } else if error.is_body() || error.is_decode() {
            JobError::retry("answer_cut_off", format!("the answer of {title} at {at} broke off: {root}"))
        } else if error.is_builder() {
            JobError::give_up(
                "bad_request",
                format!("the call to {title} at {at} cannot be made: {root}; check the system's settings"),
            )
        } else {
            JobError::retry(
                "vendor_unreachable",
                format!("the connection to {title} at {at} broke off: {root}"),
            )
        };
        failed.because(error)
    }

    /// The guard refused the address.
    pub(super) fn refused(&self, refused: &Refused) -> JobError {
        let title = &self.manifest.title;
        match refused {
            Refused::Address(_) => JobError::give_up(
                "address_refused",
                format!(
                    "{title} was not called: {refused}; if the vendor lives in your own network, name that network in \
                     `vendors.allow_networks` of the settings, else correct `api_endpoint`"
                ),
            ),
            Refused::Form(_) => JobError::give_up(
                "address_refused",
                format!("{title} was not called: {refused}; correct `api_endpoint`"),
            ),
            Refused::OtherHost(_) | Refused::Downgrade | Refused::TooMany => JobError::give_up(
                "redirect_refused",
                format!(
                    "{title} was not followed: {refused}; enter the address that it redirects to as `api_endpoint`"
                ),
            ),
        }
    }

    /// The answer is larger than we read.
    pub(super) fn too_large(&self, url: &Url) -> JobError {
        let most = self.inner.settings.response_bytes_max;
        JobError::give_up(
            "answer_too_large",
            format!(
                "the answer of {} at {} is larger than {most} bytes; ask for smaller pages (`page_size`), or raise \
                 `vendors.response_bytes_max` of the settings",
                self.manifest.title,
                self.shown(url)
            ),
        )
    }

    /// A status other than success.
    pub(super) fn refused_by_status(
        &self,
        status: StatusCode,
        bytes: &[u8],
        wait: Option<Duration>,
        url: &Url,
    ) -> JobError {
        let text = std::str::from_utf8(bytes).ok();
        let body = text.and_then(|text| json::read(text).ok()).unwrap_or(Value::Null);
        let words = self.vendor_words(&body, bytes);
        if let Some(error) = self.by_failure_rule(status.as_u16(), &body, &words) {
            return error;
        }
        let title = &self.manifest.title;
        let at = self.shown(url);
        let code = status.as_u16();
        let messages = &self.manifest.messages;
        let own = |own: &Option<String>, default: String| own.clone().unwrap_or(default);
        match code {
            401 if self.manifest.auth.token().is_some() => {
                let default = format!(
                    "{title} does not accept its own access token (401): enter the credentials anew, then test the \
                     connection"
                );
                JobError::unauthorized("token_refused", own(&messages.unauthorized, default) + &words)
            }
            401 => {
                let default = format!(
                    "{title} does not accept the credentials (401): enter new ones, then test the connection"
                );
                JobError::unauthorized("unauthorized", own(&messages.unauthorized, default) + &words)
            }
            403 => {
                let default = format!(
                    "{title} accepts the credentials but refuses the data (403): give them the right to read it"
                );
                JobError::unauthorized("forbidden", own(&messages.forbidden, default) + &words)
            }
            404 => {
                let default = format!(
                    "{title} knows nothing at {at} (404): check `api_endpoint` and the paths in the settings"
                );
                JobError::give_up(NOT_FOUND, own(&messages.not_found, default) + &words)
            }
            429 => {
                let message = format!("{title} asks for fewer calls (429){words}");
                JobError::new(Action::Retry { after: wait }, "rate_limited", message)
            }
            408 | 425 | 500..=599 => {
                let message = format!("{title} has a fault of its own ({code}) at {at}{words}");
                JobError::new(Action::Retry { after: wait }, "vendor_unavailable", message)
            }
            300..=399 => {
                let message = format!(
                    "{title} answered {code} at {at} without saying where to go; check `api_endpoint`"
                );
                JobError::give_up("redirect_refused", message)
            }
            _ => {
                let message = format!(
                    "{title} refuses the request at {at} ({code}); check the system's settings{words}"
                );
                JobError::give_up("vendor_refused", message)
            }
        }
    }

    /// Success by status, not by the rule.
    pub(super) fn refused_by_body(&self, answer: &Answer, because: Option<&str>) -> JobError {
        let title = &self.manifest.title;
        let words = self.vendor_words(&answer.body, &[]);
        if let Some(error) = self.by_failure_rule(answer.status, &answer.body, &words) {
            return error;
        }
        let message = match because {
            None => {
                format!("{title} answered {} but reports an error{words}", answer.status)
            }
            Some(problem) => {
                format!("{title} gave an unexpected answer: {problem}{words}")
            }
        };
        JobError::retry("vendor_error", self.redact(&message))
    }

    /// 200, and no JSON: `problem` says what it is instead.
    pub(super) fn not_json(&self, bytes: &[u8], problem: &str, url: &Url) -> JobError {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
        let html = text.trim_start().to_ascii_lowercase();
        let what = if html.starts_with("<!doctype html") || html.starts_with("<html") {
            "a web page".to_owned()
        } else {
            format!("no valid JSON ({})", self.redact(problem.trim_start_matches("is not JSON: ")))
        };
        JobError::retry(
            "not_json",
            format!(
                "{} answered with {what} instead of JSON at {}; a gateway or a sign-in page may stand between; \
                 if it stays so, correct `api_endpoint`",
                self.manifest.title,
                self.shown(url)
            ),
        )
    }

    /// An address without its query, for people.
    pub(super) fn shown(&self, url: &Url) -> String {
        let mut plain = url.clone();
        plain.set_query(None);
        plain.set_fragment(None);
        self.redact(plain.as_str())
    }

    fn by_failure_rule(&self, status: u16, body: &Value, words: &str) -> Option<JobError> {
        let bindings = [("status", &Value::from(status)), ("body", body)];
        let rule = self.manifest.failures.iter().find(|rule| rule.when.holds(&bindings).unwrap_or(false))?;
        let default = || format!("{} reports an error", self.manifest.title);
        let message = rule.message.clone().unwrap_or_else(default) + words;
        Some(match rule.outcome {
            FailureOutcome::Retry => JobError::retry("vendor_error", message),
            FailureOutcome::GiveUp => JobError::give_up("vendor_error", message),
            FailureOutcome::NotFound => JobError::give_up(NOT_FOUND, message),
            FailureOutcome::Unauthorized => JobError::unauthorized("unauthorized", message),
            FailureOutcome::RefreshToken => JobError::unauthorized("token_refused", message),
        })
    }

    /// ` (the vendor says: …)`, or nothing.
    fn vendor_words(&self, body: &Value, bytes: &[u8]) -> String {
        let found = path::first_present(&self.manifest.envelope.error, body).and_then(template::as_text);
        let words = found.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(bytes);
            if text.trim_start().starts_with('<') { String::new() } else { text.into_owned() }
        });
        // Redacted before it is cut, so that no half of a secret is left.
        let clean: String =
            self.redact(&words).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let words = clean.trim();
        match words.char_indices().nth(WORDS_CHARS_MAX) {
            _ if words.is_empty() => String::new(),
            Some((end, _)) => format!(" (the vendor says: {}…)", &words[..end]),
            None => format!(" (the vendor says: {words})"),
        }
    }
}

/// Whether an error of a call for one record says something of that record alone.
pub(super) fn speaks_of_one_record(error: &JobError) -> bool {
    error.action == Action::GiveUp && OF_ONE_RECORD.contains(&error.code)
}

/// The first cause of that type.
fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What the last cause says.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    last.to_string()
}

//! One call: spend the budget, send, read no more than allowed, understand. Everything that is kept of
//! it, for the run's page or for an error, has passed the redactor.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LINK, RETRY_AFTER};
use reqwest::{Response, Url};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use zhilian_sync_store::rate_budgets::{self, Budget, Grant};

use super::super::expression::Expression;
use super::super::guard;
use super::super::manifest::token::TokenSpec;

use super::super::json;
use super::super::manifest::{Limit, Request};
use super::super::template::Slots;
use super::Connection;
use super::build::Draft;
use super::outcome::TOKEN_REFUSED;
use crate::outcome::{Action, JobError};

/// A shorter wait for the budget is slept through; a longer one gives the worker to others.
const SLEEP_MAX: Duration = Duration::from_secs(3);
/// How long one of the many small calls of a page waits for the budget. A vendor that wants to be left alone for
/// longer gets its peace: then the page is read anew.
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// The code of a run that is postponed for its budget.
const BUDGET_SPENT: &str = "rate_budget";
/// The most of an answer that is read to find the vendor's words in it.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// What is asked, before it is written down.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub(super) request: &'a Request,
    pub(super) slots: Slots<'a>,
    /// The rule that a good answer fulfils.
    pub(super) success: Option<&'a Expression>,
    /// The parameters of window and page.
    pub(super) parameters: Vec<(&'a str, Value)>,
    /// The vendor's own address of the page.
    pub(super) link: Option<Url>,
    /// Where it asks for an access token.
    pub(super) token_of: Option<&'a TokenSpec>,
}

impl<'a> Call<'a> {
    /// A call without window and page.
    pub(super) fn new(request: &'a Request, slots: Slots<'a>, success: Option<&'a Expression>) -> Self {
        Self { request, slots, success, parameters: Vec::new(), link: None, token_of: None }
    }

    /// Whether it has what all requests have in common; a token call may do without.
    pub(super) fn is_common(&self) -> bool {
        self.token_of.is_none_or(|spec| spec.common)
    }
}

/// A successful answer, by its status and by the rule.
pub(super) struct Answer {
    /// The address that was called.
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) body: Value,
    /// Whether the vendor repeats one of our keys somewhere in it.
    pub(super) repeats_keys: bool,
    pub(super) link: Option<String>,
    pub(super) vendor_time: Option<DateTime<Utc>>,
    pub(super) asked_at: DateTime<Utc>,
    pub(super) request_sample: Value,
    pub(super) response_sample: Value,
}

impl Connection {
    /// Calls, with an access token where the vendor gives one, and once more where it refuses the token.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Answer, JobError> {
        // Boxed, because every job would carry the room for all of them.
        let Some(spec) = self.manifest.auth.token() else {
            return Box::pin(self.attempt(call, None)).await;
        };
        let token = Box::pin(self.token(spec, None)).await?;
        match Box::pin(self.attempt(call, Some(&token))).await {
            Err(error) if error.code == TOKEN_REFUSED => {
                let token = Box::pin(self.token(spec, Some(&token))).await?;
                Box::pin(self.attempt(call, Some(&token))).await
            }
            done => done,
        }
    }

    /// Calls once, and answers what came with a status of success and fulfils the rule.
    pub(super) async fn attempt(
        &self,
        call: &Call<'_>,
        token: Option<&SecretString>,
    ) -> Result<Answer, JobError> {
        let request = call.request;
        let limit = self.limit(request);
        if let Some((key, limit)) = &limit {
            self.spend(key, *limit).await?;
        }
        // After the wait for the budget: vendors refuse a time that is long past.
        let asked_at = self.inner.store.clock().now();
        let request_time = Some(self.request_time(asked_at));
        let slots = Slots { request_time, token, ..call.slots.clone() };
        let draft = self.draft(call, &slots)?;
        let url = &draft.url;
        guard::check_url(url, &self.inner.allow).map_err(|refused| self.refused(&refused))?;
        let request_sample = self.request_sample(request, &draft);
        if let Some(tell) = &self.watcher {
            tell(&request_sample);
        }
        let mut builder = self.inner.http.request(request.method.clone(), url.clone());
        if let Some(body) = &draft.body {
            builder = builder.header(CONTENT_TYPE, body.content_type()).body(body.text());
        }
        builder = builder.headers(draft.headers.clone());
        tracing::debug!(system.id = %self.system_id, vendor = %self.manifest.name, url = %self.shown(url), "calling the vendor");
        let response = builder.send().await.map_err(|error| self.failed_call(error, url))?;
        let status = response.status();
        let headers = response.headers().clone();
        let bytes_max =
            if status.is_success() { self.inner.settings.response_bytes_max } else { ERROR_BODY_BYTES_MAX };
        let read = self.read(response, bytes_max, url).await;
        if !status.is_success() {
            // The status decides, whatever became of the body.
            let wait = self.retry_after(&headers);
            if let (Some((key, limit)), 429) = (&limit, status.as_u16()) {
                let wait = wait.unwrap_or(Duration::from_secs(1));
                rate_budgets::block(&self.inner.store, &budget(key, *limit), wait).await?;
            }
            return Err(self.refused_by_status(status, &read.unwrap_or_default(), wait, url));
        }
        let bytes = read?;
        let response_sample = draft.signature.json(&self.response_sample(status.as_u16(), &headers, &bytes));
        let body = self.understand(&bytes, url)?;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let links: Vec<&str> = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).collect();
        let answer = Answer {
            url: url.clone(),
            status: status.as_u16(),
            body,
            repeats_keys: self.keys.stand_in(&bytes),
            link: (!links.is_empty()).then(|| links.join(", ")),
            vendor_time: text(DATE).and_then(parse_http_date),
            asked_at,
            request_sample,
            response_sample,
        };
        self.check_success(call.success, &answer)?;
        Ok(answer)
    }

    /// Calls, and waits for the shared budget again and again: for the many small calls of one page, which would all
    /// be made anew if the run were postponed between them. Whoever calls bounds the time.
    #[expect(
        clippy::disallowed_methods,
        reason = "the wait is that of the budget, and ends with the attempt"
    )]
    pub(super) async fn call_patiently(&self, call: &Call<'_>) -> Result<Answer, JobError> {
        loop {
            match self.call(call).await {
                Err(JobError { action: Action::Snooze(wait), code: BUDGET_SPENT, .. })
                    if wait <= PATIENCE_MAX =>
                {
                    tokio::time::sleep(wait).await;
                }
                answered => return answered,
            }
        }
    }

    /// `{request.time}` of a call that is made at that time.
    pub(super) fn request_time(&self, at: DateTime<Utc>) -> Value {
        let common = &self.manifest.connection;
        common.clock.write(at, common.clock_zone.unwrap_or(self.timezone), false)
    }

    /// Whether the answer says success, by the stream's or the vendor's rule.
    fn check_success(&self, rule: Option<&Expression>, answer: &Answer) -> Result<(), JobError> {
        let Some(rule) = rule else { return Ok(()) };
        match rule.holds(&[("status", &Value::from(answer.status)), ("body", &answer.body)]) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refused_by_body(answer, None)),
            Err(problem) => Err(self.refused_by_body(
                answer,
                Some(&format!("the rule `{}` cannot be computed: {problem}", rule.as_str())),
            )),
        }
    }

    fn limit(&self, request: &Request) -> Option<(String, Limit)> {
        let class = request.limit.as_deref().unwrap_or("default");
        let limit = self.manifest.limits.get(class)?;
        Some((format!("{}/{}/{class}", self.manifest.name, self.budget_owner), *limit))
    }

    /// Waits for the shared budget a little, or postpones the run.
    #[expect(clippy::disallowed_methods, reason = "a wait shorter than claiming the run again would take")]
    async fn spend(&self, key: &str, limit: Limit) -> Result<(), JobError> {
        let mut slept = Duration::ZERO;
        loop {
            let Grant::Wait(wait) = rate_budgets::take(&self.inner.store, &budget(key, limit)).await? else {
                return Ok(());
            };
            if slept + wait > SLEEP_MAX {
                let message = format!(
                    "the rate budget of {} is spent; the run goes on in {} s",
                    self.manifest.title,
                    wait.as_secs() + 1
                );
                return Err(JobError::snooze(wait, BUDGET_SPENT, message));
            }
            slept += wait;
            tokio::time::sleep(wait).await;
        }
    }

    pub(super) fn headers(&self, call: &Call<'_>, slots: &Slots<'_>) -> Result<HeaderMap, JobError> {
        let mut headers = HeaderMap::new();
        let common = if call.is_common() { self.manifest.connection.headers.as_slice() } else { &[] };
        headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, template) in common.iter().chain(&call.request.headers) {
            let Some(text) = template.text(slots) else {
                continue;
            };
            let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&text).ok());
            let Some((header, mut value)) = pair else {
                let message = format!(
                    "the header `{name}` cannot be sent; a setting holds a sign that no header may have"
                );
                return Err(JobError::give_up("bad_header", message));
            };
            value.set_sensitive(self.redactor.text(&text) != text);
            headers.insert(header, value);
        }
        if let Some((name, value)) = &self.auth {
            headers.insert(name.clone(), value.clone());
        }
        Ok(headers)
    }

    /// Reads the unpacked body up to a cap, so that a bomb bursts outside.
    async fn read(&self, mut response: Response, bytes_max: usize, url: &Url) -> Result<Vec<u8>, JobError> {
        let too_large = || self.too_large(url);
        if response.content_length().is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed_call(error, url))? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn understand(&self, bytes: &[u8], url: &Url) -> Result<Value, JobError> {
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        let text = std::str::from_utf8(text).map_err(|_| "is not text in UTF-8".to_owned());
        text.and_then(json::read).map_err(|problem| self.not_json(bytes, &problem, url))
    }

    fn request_sample(&self, request: &Request, draft: &Draft) -> Value {
        let mut sample = Map::new();
        sample.insert("method".into(), Value::from(request.method.as_str()));
        sample.insert("url".into(), Value::from(self.redact(draft.url.as_str())));
        let headers = draft.headers.iter().map(|(name, value)| {
            let shown = if value.is_sensitive() { "***" } else { value.to_str().unwrap_or_default() };
            (name.to_string(), Value::from(self.redact(shown)))
        });
        sample.insert("headers".into(), Value::Object(headers.collect()));
        if let Some(body) = &draft.body {
            let shown = draft.signature.json(&self.redactor.json(&body.shown()));
            let text = shown.to_string();
            let kept = if text.len() <= self.inner.settings.sample_bytes_max {
                shown
            } else {
                Value::from(self.redactor.beginning(text.as_bytes(), self.inner.settings.sample_bytes_max))
            };
            sample.insert("body".into(), kept);
        }
        draft.signature.json(&Value::Object(sample))
    }

    fn response_sample(&self, status: u16, headers: &HeaderMap, bytes: &[u8]) -> Value {
        let kept = [CONTENT_TYPE, DATE, LINK, RETRY_AFTER].into_iter().filter_map(|name| {
            let text = headers.get(&name)?.to_str().ok()?;
            Some((name.to_string(), Value::from(self.redact(text))))
        });
        json!({
            "status": status,
            "headers": Value::Object(kept.collect()),
            "body": self.redactor.beginning(bytes, self.inner.settings.sample_bytes_max),
        })
    }

    /// The vendor's wish to be left alone, bounded by the settings.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        // Shopify writes `2.0`, which HTTP does not know.
        let secs = text.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
        let wait = if let Some(wait) = secs {
            wait
        } else {
            let until = parse_http_date(text)?;
            let now = headers.get(DATE).and_then(|value| parse_http_date(value.to_str().ok()?));
            let now = now.unwrap_or_else(|| self.inner.store.clock().now());
            (until - now).to_std().unwrap_or_default()
        };
        Some(wait.min(Duration::from_secs(self.inner.settings.retry_after_max_secs)))
    }
}

fn budget(key: &str, limit: Limit) -> Budget<'_> {
    Budget { key, requests: limit.requests, per_ms: limit.per_ms, burst: limit.burst }
}

/// `Thu, 01 Jan 2026 04:00:00 GMT`.
fn parse_http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|time| time.with_timezone(&Utc))
}

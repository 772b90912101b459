//! One call: spend the budget, send, read no more than allowed, understand. Everything that is kept of
//! it, for the run's page or for an error, has passed the redactor.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LINK, RETRY_AFTER};
use reqwest::{Response, Url};
use serde_json::{Map, Value, json};
use zhilian_sync_store::rate_budgets::{self, Budget, Grant};

use super::super::expression::Expression;
use super::super::guard;
use super::super::json;
use super::super::manifest::{Limit, Request};
use super::super::template::Slots;
use super::Connection;
use crate::outcome::JobError;

/// A shorter wait for the budget is slept through; a longer one gives the worker to others.
const SLEEP_MAX: Duration = Duration::from_secs(3);
/// The most of an answer that is read to find the vendor's words in it.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// A successful answer, by its status.
pub(super) struct Answer {
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
    /// Calls, and answers what came with a status of success.
    pub(super) async fn call(
        &self,
        request: &Request,
        slots: &Slots<'_>,
        url: &Url,
    ) -> Result<Answer, JobError> {
        guard::check_url(url, &self.inner.allow).map_err(|refused| self.refused(&refused))?;
        let limit = self.limit(request);
        if let Some((key, limit)) = &limit {
            self.spend(key, *limit).await?;
        }
        let body = request.body.as_ref().map(|body| body.json(slots).unwrap_or_else(|| json!({})));
        let headers = self.headers(request, slots)?;
        let request_sample = self.request_sample(request, url, &headers, body.as_ref());
        let mut builder = self.inner.http.request(request.method.clone(), url.clone()).headers(headers);
        if let Some(body) = &body {
            builder = builder.json(body);
        }
        let asked_at = self.inner.store.clock().now();
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
        let response_sample = self.response_sample(status.as_u16(), &headers, &bytes);
        let body = self.understand(&bytes, url)?;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let links: Vec<&str> = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).collect();
        Ok(Answer {
            status: status.as_u16(),
            body,
            repeats_keys: self.keys.stand_in(&bytes),
            link: (!links.is_empty()).then(|| links.join(", ")),
            vendor_time: text(DATE).and_then(parse_http_date),
            asked_at,
            request_sample,
            response_sample,
        })
    }

    /// The endpoint with the request's path and query.
    pub(super) fn url(&self, request: &Request, slots: &Slots<'_>) -> Result<Url, JobError> {
        let missing = || {
            let message = format!(
                "{} lacks a setting that the address needs; see the manifest's `config`",
                self.manifest.title
            );
            JobError::give_up("setting_missing", message)
        };
        let path = request.path.path(slots).ok_or_else(missing)?;
        let mut url = self.endpoint.clone();
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        let whole = format!("{}{path}", self.endpoint.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(query);
        for (name, template) in &request.query {
            if let Some(value) = template.text(slots) {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(url)
    }

    /// Whether the answer says success, by the stream's or the vendor's rule.
    pub(super) fn check_success(&self, rule: Option<&Expression>, answer: &Answer) -> Result<(), JobError> {
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
                return Err(JobError::snooze(wait, "rate_budget", message));
            }
            slept += wait;
            tokio::time::sleep(wait).await;
        }
    }

    fn headers(&self, request: &Request, slots: &Slots<'_>) -> Result<HeaderMap, JobError> {
        let mut headers = HeaderMap::new();
        headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, template) in self.manifest.headers.iter().chain(&request.headers) {
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

    fn request_sample(
        &self,
        request: &Request,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&Value>,
    ) -> Value {
        let mut sample = Map::new();
        sample.insert("method".into(), Value::from(request.method.as_str()));
        sample.insert("url".into(), Value::from(self.redact(url.as_str())));
        let headers = headers.iter().map(|(name, value)| {
            let shown = if value.is_sensitive() { "***" } else { value.to_str().unwrap_or_default() };
            (name.to_string(), Value::from(self.redact(shown)))
        });
        sample.insert("headers".into(), Value::Object(headers.collect()));
        if let Some(body) = body {
            let text = self.redactor.json(body).to_string();
            let kept = if text.len() <= self.inner.settings.sample_bytes_max {
                self.redactor.json(body)
            } else {
                Value::from(self.redactor.beginning(text.as_bytes(), self.inner.settings.sample_bytes_max))
            };
            sample.insert("body".into(), kept);
        }
        Value::Object(sample)
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
        let wait = if let Ok(secs) = text.parse() {
            Duration::from_secs(secs)
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

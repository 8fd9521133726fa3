//! Sends clicks through `POST /v1/clicks`, as NDJSON. A batch whose outcome is unclear is sent again to the next node
//! with the same `event_id`s. A retry is a duplicate, never a second click.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};

use super::door::{Batch, Door, QUEUE_BATCHES_MAX};
use super::options::LoadOptions;
use super::plan::{Fate, PlannedClick};
use super::progress::LoadWatch;

/// Requests in flight at once.
const REQUESTS_MAX: usize = 4;
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between two attempts of one batch. Nodes that are down answer at once, and must not be asked in a tight
/// loop.
const PAUSE_BEFORE_REPEAT: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Capture's answer to a batch.
#[derive(Debug, Deserialize)]
struct CaptureAnswer {
    accepted: usize,
    errors: Vec<RefusedItem>,
}

/// Capture's answer to a batch of which it takes no click.
#[derive(Debug, Deserialize)]
struct RefusedBatch {
    errors: Vec<RefusedItem>,
}

/// A click that the server refuses. No repeat would change that.
#[derive(Debug, Deserialize)]
pub(super) struct RefusedItem {
    /// Position in the batch.
    pub(super) index: usize,
    #[serde(rename = "type")]
    problem: String,
    pub(super) detail: String,
}

impl RefusedItem {
    /// The last part of the problem's address, such as `click-field-invalid`.
    pub(super) fn kind(&self) -> &str {
        self.problem.rsplit('/').next().unwrap_or_default()
    }
}

pub(super) fn open(options: &LoadOptions, watch: &Arc<LoadWatch>) -> anyhow::Result<Door> {
    let sender = HttpSender::new(options, watch)?;
    let (queue, batches) = mpsc::channel(QUEUE_BATCHES_MAX);
    let workers = Arc::new(Workers { sender, batches: Mutex::new(batches) });
    let task = tokio::spawn(async move {
        let workers = (0..REQUESTS_MAX).map(|worker| workers.clone().work(worker));
        futures::future::try_join_all(workers).await.map(|_| ())
    });
    Ok(Door::new("HTTP", options.http_batch, queue, task))
}

struct Workers {
    sender: HttpSender,
    batches: Mutex<mpsc::Receiver<Batch>>,
}

impl Workers {
    /// Takes batches until there are no more. Workers start at different nodes, and stay with the node that answers.
    async fn work(self: Arc<Workers>, worker: usize) -> anyhow::Result<()> {
        let mut node = worker % self.sender.urls.len();
        loop {
            let Some(batch) = self.batches.lock().await.recv().await else { return Ok(()) };
            let refused = self.sender.deliver(&mut node, &body_of(&batch), batch.len()).await?;
            let malformed = batch.iter().filter(|click| click.fate == Fate::Malformed).count();
            ensure!(
                refused.len() == malformed,
                "{} refused {} clicks of a batch that has {malformed} malformed ones; the first: {:?}",
                self.sender.urls[node],
                refused.len(),
                refused.first()
            );
        }
    }
}

/// Sends batches, each until it is answered.
pub(super) struct HttpSender {
    client: reqwest::Client,
    urls: Vec<String>,
    give_up: Duration,
    authorization: Option<HeaderValue>,
    watch: Arc<LoadWatch>,
}

impl HttpSender {
    pub(super) fn new(options: &LoadOptions, watch: &Arc<LoadWatch>) -> anyhow::Result<HttpSender> {
        let client = reqwest::Client::builder()
            .timeout(REQUEST_DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .pool_max_idle_per_host(REQUESTS_MAX)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(HttpSender {
            client,
            urls: options.urls.iter().map(|url| format!("{}/v1/clicks", url.trim_end_matches('/'))).collect(),
            give_up: Duration::from_secs(options.give_up_s),
            authorization: options.token.authorization()?,
            watch: watch.clone(),
        })
    }

    /// Returns once every click of the batch is durable or refused; the refused ones in their order. Starts at `node`,
    /// and leaves there the one that answered.
    pub(super) async fn deliver(
        &self,
        node: &mut usize,
        body: &str,
        clicks: usize,
    ) -> anyhow::Result<Vec<RefusedItem>> {
        let answer = tokio::time::timeout(self.give_up, self.repeat_until_answered(node, body, clicks)).await;
        let refused = answer.with_context(|| {
            format!("a batch was not acknowledged within {:?} by any of {:?}", self.give_up, self.urls)
        })??;
        self.watch.add_acknowledged(clicks);
        Ok(refused)
    }

    async fn repeat_until_answered(
        &self,
        node: &mut usize,
        body: &str,
        clicks: usize,
    ) -> anyhow::Result<Vec<RefusedItem>> {
        loop {
            let pause = match self.attempt(&self.urls[*node], body, clicks).await? {
                Attempt::Answered(refused) => return Ok(refused),
                Attempt::Busy(pause) => pause.min(PAUSE_MAX),
                Attempt::Unclear => {
                    *node = (*node + 1) % self.urls.len();
                    PAUSE_BEFORE_REPEAT
                }
            };
            self.watch.add_repeat();
            tokio::time::sleep(pause).await;
        }
    }

    /// Fails if the answer is a verdict on the whole batch that no repeat would change.
    async fn attempt(&self, url: &str, body: &str, clicks: usize) -> anyhow::Result<Attempt> {
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/x-ndjson").body(body.to_owned());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let Ok(response) = request.send().await else { return Ok(Attempt::Unclear) };
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok(Attempt::Busy(Duration::from_secs(after.unwrap_or(1))));
        }
        // A node without the capture role rejects the batch; another node may have the role.
        if status.is_server_error() || status == StatusCode::MISDIRECTED_REQUEST {
            return Ok(Attempt::Unclear);
        }
        let Ok(text) = response.text().await else { return Ok(Attempt::Unclear) };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            bail!(
                "{url} does not know the token ({status}): give that of a source by --token-file, CLICKTALLY_TOKEN or --token"
            );
        }
        if status == StatusCode::BAD_REQUEST
            && let Ok(RefusedBatch { errors }) = serde_json::from_str(&text)
            && errors.len() == clicks
        {
            return Ok(Attempt::Answered(errors));
        }
        if !status.is_success() {
            bail!("{url} refused a batch with {status}: {text}");
        }
        let CaptureAnswer { accepted, errors } =
            serde_json::from_str(&text).context("cannot decode capture's answer")?;
        // An answer that does not match this batch, or only a part of it, does not acknowledge it.
        ensure!(
            accepted + errors.len() == clicks && errors.is_sorted_by(|a, b| a.index < b.index),
            "{url} took {accepted} clicks of a batch of {clicks} and refused {}",
            errors.len()
        );
        Ok(Attempt::Answered(errors))
    }
}

enum Attempt {
    /// Every click is durable, except these.
    Answered(Vec<RefusedItem>),
    Busy(Duration),
    Unclear,
}

fn body_of(batch: &[PlannedClick]) -> String {
    let mut body = String::with_capacity(batch.len() * 320);
    for click in batch {
        write_line(&mut body, click);
    }
    body
}

pub(super) fn write_line(body: &mut String, click: &PlannedClick) {
    let millis = i64::try_from(click.event_time_ms).unwrap_or(i64::MAX);
    let timestamp = DateTime::from_timestamp_millis(millis).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let text = |value: &str| serde_json::Value::from(value).to_string();
    // Writing to a string cannot fail. A malformed click lacks its ad.
    let _ = write!(body, r#"{{"event_id":{},"timestamp":"{timestamp}","#, text(&click.event_id));
    if click.fate != Fate::Malformed {
        let _ = write!(body, r#""ad_id":{},"#, click.ad_id);
    }
    for (name, value) in [
        ("user_agent", click.user_agent.as_ref()),
        ("ip_address", &click.ip_address),
        ("country", click.country.as_ref()),
        ("device_type", click.device_type.as_ref()),
        ("user_id", &click.user_id),
    ] {
        if !value.is_empty() {
            let _ = write!(body, r#""{name}":{},"#, text(value));
        }
    }
    if click.cost_per_click_micros > 0 {
        let (whole, micros) = (click.cost_per_click_micros / 1_000_000, click.cost_per_click_micros % 1_000_000);
        let _ = write!(body, r#""cost_per_click":"{whole}.{micros:06}","#);
    }
    let _ = writeln!(body, r#""campaign_id":{}}}"#, click.campaign_id);
}

#[cfg(test)]
mod tests {
    use super::super::plan::DoorKind;
    use super::*;

    #[test]
    fn a_line_is_one_json_object_with_the_contracts_names() {
        let click = PlannedClick {
            door: DoorKind::Http,
            fate: Fate::Counted,
            event_id: "r-\"1\"".into(),
            ad_id: 5,
            campaign_id: 6,
            event_time_ms: 1_790_000_000_123,
            user_agent: "agent".into(),
            country: "PT".into(),
            device_type: "mobile".into(),
            ip_address: "203.0.113.1".into(),
            user_id: "user-7".into(),
            cost_per_click_micros: 1_020_003,
        };
        let body = body_of(&[click.clone(), PlannedClick { fate: Fate::Malformed, ..click }]);
        let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["event_id"], "r-\"1\"");
        assert_eq!(lines[0]["timestamp"], "2026-09-21T14:13:20.123Z");
        assert_eq!(lines[0]["ad_id"], 5);
        assert_eq!((&lines[0]["user_id"], &lines[0]["cost_per_click"]), (&"user-7".into(), &"1.020003".into()));
        assert!(lines[1].get("ad_id").is_none());
    }
}

//! The door that rows go through, one batch after the other.

use std::sync::Arc;

use clicktally_api::request::body_bytes::BODY_BYTES_MAX;

use super::super::door::Door;
use super::super::http_door::{HttpSender, RefusedItem, write_line};
use super::super::plan::{DoorKind, PlannedClick};
use super::super::{LoadOptions, LoadWatch, log_door};

/// A row on its way.
pub(super) struct PlannedRow {
    pub(super) line: u64,
    pub(super) names_campaign: bool,
    pub(super) is_address_left_out: bool,
    pub(super) click: PlannedClick,
}

/// A row that the door has answered for.
pub(super) struct Answered {
    pub(super) row: PlannedRow,
    pub(super) refusal: Option<RefusedItem>,
}

pub(super) enum RowDoor {
    Http(HttpBatch),
    /// Takes rows at once, and acknowledges all of them at its end.
    Log(Door),
}

pub(super) struct HttpBatch {
    sender: HttpSender,
    node: usize,
    clicks_max: usize,
    rows: Vec<PlannedRow>,
    body: String,
}

impl RowDoor {
    /// HTTP if a URL is given.
    pub(super) fn open(options: &LoadOptions, watch: &Arc<LoadWatch>) -> anyhow::Result<RowDoor> {
        if let (true, Some(bootstrap)) = (options.urls.is_empty(), &options.kafka) {
            return Ok(RowDoor::Log(log_door::open(options, bootstrap, watch)?));
        }
        Ok(RowDoor::Http(HttpBatch {
            sender: HttpSender::new(options, watch)?,
            node: 0,
            clicks_max: options.http_batch,
            rows: Vec::new(),
            body: String::new(),
        }))
    }

    pub(super) fn kind(&self) -> DoorKind {
        match self {
            RowDoor::Http(_) => DoorKind::Http,
            RowDoor::Log(_) => DoorKind::Log,
        }
    }

    /// Takes a row, and returns those that are answered for by now.
    pub(super) async fn push(&mut self, row: PlannedRow) -> anyhow::Result<Vec<Answered>> {
        match self {
            RowDoor::Http(batch) => batch.push(row).await,
            RowDoor::Log(door) => {
                door.push(row.click.clone());
                door.flush(false).await?;
                Ok(vec![Answered { row, refusal: None }])
            }
        }
    }

    /// Sends what is collected.
    pub(super) async fn flush(&mut self) -> anyhow::Result<Vec<Answered>> {
        match self {
            RowDoor::Http(batch) => batch.send().await,
            RowDoor::Log(door) => door.flush(true).await.map(|()| Vec::new()),
        }
    }

    /// Returns once everything is acknowledged. Flush before.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        match self {
            RowDoor::Http(_) => Ok(()),
            RowDoor::Log(door) => door.finish().await,
        }
    }
}

impl HttpBatch {
    async fn push(&mut self, row: PlannedRow) -> anyhow::Result<Vec<Answered>> {
        let mut line = String::new();
        write_line(&mut line, &row.click);
        // Many long agents make a batch longer than capture takes.
        let is_full = self.rows.len() == self.clicks_max || self.body.len() + line.len() > BODY_BYTES_MAX;
        let answered = if is_full { self.send().await? } else { Vec::new() };
        self.body.push_str(&line);
        self.rows.push(row);
        Ok(answered)
    }

    async fn send(&mut self) -> anyhow::Result<Vec<Answered>> {
        if self.rows.is_empty() {
            return Ok(Vec::new());
        }
        let refused = self.sender.deliver(&mut self.node, &self.body, self.rows.len()).await?;
        let mut refused = refused.into_iter().peekable();
        let rows = std::mem::take(&mut self.rows).into_iter().enumerate();
        self.body.clear();
        Ok(rows.map(|(index, row)| Answered { row, refusal: refused.next_if(|item| item.index == index) }).collect())
    }
}

//! The head of format 3: one record, whose fields are recognised by their order. Frozen: no field is ever added here.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::command::{GroupSettings, NodeRecord};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::head::{Frames, Tag};
use crate::roster::WorkerLeases;
use crate::shards::ShardEntry;

#[derive(Serialize, Deserialize)]
struct HeadRecord {
    group: GroupId,
    settings: Option<GroupSettings>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    draining: BTreeSet<NodeId>,
    levels: BTreeMap<NodeId, u16>,
    workers: WorkerLeases,
    shards: BTreeMap<ShardId, ShardEntry>,
    watermark_ms: UnixMillis,
    newest_revision: u64,
    published_revision: u64,
}

/// The record as fields, so that no part of the state knows of it.
pub(super) fn read(frame: &[u8]) -> Result<Frames, CodecError> {
    let record: HeadRecord = codec::decode(frame)?;
    let fields = [
        (Tag::Group, codec::encode(&record.group)?),
        (Tag::Settings, codec::encode(&record.settings)?),
        (Tag::Nodes, codec::encode(&record.nodes)?),
        (Tag::Draining, codec::encode(&record.draining)?),
        (Tag::Levels, codec::encode(&record.levels)?),
        (Tag::Workers, codec::encode(&record.workers)?),
        (Tag::Shards, codec::encode(&record.shards)?),
        (Tag::WatermarkMs, codec::encode(&record.watermark_ms)?),
        (Tag::NewestRevision, codec::encode(&record.newest_revision)?),
        (Tag::PublishedRevision, codec::encode(&record.published_revision)?),
    ];
    Ok(fields.into_iter().map(|(tag, frame)| (tag as u16, frame)).collect())
}

pub(super) fn written(fields: &Frames) -> Result<Vec<u8>, CodecError> {
    codec::encode(&HeadRecord {
        group: field(fields, Tag::Group)?,
        settings: field(fields, Tag::Settings)?,
        nodes: field(fields, Tag::Nodes)?,
        draining: field(fields, Tag::Draining)?,
        levels: field(fields, Tag::Levels)?,
        workers: field(fields, Tag::Workers)?,
        shards: field(fields, Tag::Shards)?,
        watermark_ms: field(fields, Tag::WatermarkMs)?,
        newest_revision: field(fields, Tag::NewestRevision)?,
        published_revision: field(fields, Tag::PublishedRevision)?,
    })
}

fn field<T: DeserializeOwned>(fields: &Frames, tag: Tag) -> Result<T, CodecError> {
    let frame = fields.get(&(tag as u16)).map(Vec::as_slice).unwrap_or_default();
    codec::decode(frame)
}

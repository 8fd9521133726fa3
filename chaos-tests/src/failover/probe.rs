//! One click for every shard, straight into the log, and the wait until each is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{Partitioner, SALTS, ShardId};
use futures::future::try_join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cluster_client::ClusterClient;

/// The pause between two requests: small compared with the measured times.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const SEND_DEADLINE: Duration = Duration::from_secs(10);
const SOURCE: &str = "failover-probe";
const AD: u64 = 700_001;

pub(super) struct Probe {
    producer: FutureProducer,
    partitioner: Partitioner,
    /// Makes every click distinct.
    sent: u64,
}

/// Clicks in the log: the offset behind each, by shard.
pub(super) struct Sent(BTreeMap<u16, u64>);

impl Probe {
    pub(super) fn new(bootstrap: &str, groups: u16) -> anyhow::Result<Probe> {
        let producer = KafkaConnection::plaintext(bootstrap).probe_producer()?;
        Ok(Probe { producer, partitioner: Partitioner::new(groups), sent: 0 })
    }

    pub(super) async fn click_every_shard(&mut self) -> anyhow::Result<Sent> {
        let shards = (0..self.partitioner.groups() * SALTS).map(ShardId);
        let clicks: Vec<(ShardId, Click)> = shards.map(|shard| (shard, self.click_for(shard))).collect();
        let producer = &self.producer;
        let sends = clicks.into_iter().map(|(shard, click)| async move {
            let (key, value) = (click.event_id.clone().into_bytes(), encode_record(&[click]));
            let record = FutureRecord::to(RAW_CLICKS).partition(shard.partition()).key(&key).payload(&value);
            let delivery = producer.send(record, SEND_DEADLINE).await.map_err(|(error, _)| error)?;
            anyhow::Ok((shard.0, u64::try_from(delivery.offset)? + 1))
        });
        Ok(Sent(try_join_all(sends).await.context("sending probes")?.into_iter().collect()))
    }

    /// A campaign of the shard's group, and the next id with its salt.
    fn click_for(&mut self, shard: ShardId) -> Click {
        let in_group = |campaign: &u64| self.partitioner.group(*campaign) == shard.group();
        let campaign_id = (1..).find(in_group).unwrap_or_default();
        loop {
            self.sent += 1;
            let event_id = format!("probe-{}", self.sent);
            let id = ClickId::foreign(SOURCE, campaign_id, &event_id);
            if self.partitioner.shard(campaign_id, id) == shard {
                return Click {
                    click_id: id.0,
                    campaign_id,
                    ad_id: AD,
                    event_time_ms: SystemClock.now_ms(),
                    event_id,
                    source: SOURCE.to_owned(),
                    ..Click::default()
                };
            }
        }
    }
}

impl Sent {
    /// Waits until one of these nodes reports that each shard's committed offset is past its click. Returns when it
    /// first did, in monotonic time.
    pub(super) async fn until_counted(
        mut self,
        client: &ClusterClient,
        deadline: Duration,
    ) -> anyhow::Result<BTreeMap<u16, Duration>> {
        let mut counted_at = BTreeMap::new();
        let counted = async {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !self.0.is_empty() {
                looks.tick().await;
                // A node without an answer is asked again.
                let Ok(view) = client.cluster().await else { continue };
                let shards = view.shards();
                let is_counted =
                    |shard: &u16, behind: u64| shards.get(shard).is_some_and(|seen| seen.committed_offset >= behind);
                let now = SystemClock.monotonic();
                counted_at.extend(
                    self.0.extract_if(.., |shard, behind| is_counted(shard, *behind)).map(|(shard, _)| (shard, now)),
                );
            }
        };
        let outcome = timeout(deadline, counted).await;
        outcome.with_context(|| format!("shards {:?} stand still after {deadline:?}", self.0.keys()))?;
        Ok(counted_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_probe_is_for_its_shard_and_no_two_are_alike() {
        let mut probe = Probe::new("127.0.0.1:1", 3).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for shard in (0..3 * SALTS).chain(0..3).map(ShardId) {
            let click = probe.click_for(shard);
            assert_eq!(probe.partitioner.shard(click.campaign_id, click.id()), shard);
            assert!(ids.insert(click.click_id));
        }
    }
}

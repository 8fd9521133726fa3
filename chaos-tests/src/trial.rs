//! A trial: a fresh cluster on fresh services, a load, a fault, and the checks that must hold afterwards.
//!
//! Loads of a trial lie in minutes that are over (`--behind-s`), so that windows fire as soon as their clicks are
//! counted and no trial waits for a minute to end.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use clap::Parser;
use clicktally_kafka::{FetchBy, KafkaConnection, KafkaLog, KafkaLogSettings};
use clicktally_node::tools::load::{LoadOptions, LoadSummary, run};
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::identity::shard_key::Partitioner;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::checks::ct8_archive_is_whole::{self, ArchiveFacts};
use crate::checks::{
    self, Invariant, Violation, ct1_conservation, ct2_offset_chain, ct10_read_once, ct11_acknowledged_is_logged,
    ct12_users_and_costs,
};
use crate::cluster::{Cluster, ClusterOptions, binary_beside_this_program};
use crate::cluster_client::ClusterView;
use crate::database::Database;
use crate::eventually::{HANG_MAX, eventually, eventually_by_progress};
use crate::oracle::{self, Counts, Recount};
use crate::services::Services;
use crate::trial_load::TrialLoad;

/// A trial needs the machine for itself: its timeouts are those of production.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A trial may give an argument again, to override the usual mix.
#[derive(Parser)]
#[command(args_override_self = true)]
struct LoadArguments {
    #[command(flatten)]
    options: LoadOptions,
}

pub struct Trial {
    pub services: Services,
    pub cluster: Cluster,
    pub database: Database,
    // After the processes that live in it.
    dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Trial {
    /// Services and configurations; no node runs yet.
    pub async fn prepare(options: ClusterOptions) -> anyhow::Result<Trial> {
        let alone = ONE_AT_A_TIME.lock().await;
        let dir = tempfile::Builder::new().prefix("clicktally-trial-").tempdir()?;
        let services = Services::for_tests(dir.path()).await?;
        let cluster = Cluster::prepare(dir.path(), &binary_beside_this_program()?, &services, options)?;
        let database = Database::new(&services.postgres.url())?;
        Ok(Trial { services, cluster, database, dir, _alone: alone })
    }

    /// Three nodes, ready.
    pub async fn start() -> anyhow::Result<Trial> {
        let mut trial = Trial::prepare(ClusterOptions::default()).await?;
        trial.cluster.start().await?;
        Ok(trial)
    }

    /// Where the trial's processes have their files; it goes with the trial.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The raw log's topics, for a load that comes before the first node.
    pub async fn make_topics(&self) -> anyhow::Result<()> {
        let settings = KafkaLogSettings {
            connection: KafkaConnection::plaintext(self.services.kafka.bootstrap()),
            partitioner: Partitioner::new(self.cluster.options.groups),
            replication: Some(1),
            fetch: FetchBy::default(),
        };
        Ok(KafkaLog::connect(settings)?.ensure_topics().await?)
    }

    /// Throws away everything that was made of the raw log: the nodes and their data, the other topics, PostgreSQL.
    /// What starts next on the same log is a new cluster with other settings, if they are given.
    pub async fn forget_all_but_the_log(&mut self, options: ClusterOptions) -> anyhow::Result<()> {
        self.cluster.stop().await?;
        self.services.forget_all_but_the_log(self.dir.path()).await?;
        let dir = tempfile::Builder::new().prefix("again-").tempdir_in(self.dir.path())?.keep();
        self.cluster = Cluster::prepare(&dir, &binary_beside_this_program()?, &self.services, options)?;
        self.database = Database::new(&self.services.postgres.url())?;
        Ok(())
    }

    /// The cluster as the first node sees it that answers. A request may time out on a busy machine, so it is repeated.
    pub async fn view(&self) -> anyhow::Result<ClusterView> {
        eventually("a node answers", HANG_MAX, async || self.cluster.client.cluster().await).await
    }

    /// Starts a load through both doors with repeats, disorder, late, invalid and malformed clicks; `more` is
    /// appended to it. It goes on until [`TrialLoad::end`].
    pub fn start_load(&self, more: &[&str]) -> anyhow::Result<TrialLoad> {
        let doors: Vec<String> = self.cluster.client.urls.iter().map(|url| format!("--url={url}")).collect();
        let more: Vec<&str> = doors.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.start_log_load(&more)
    }

    /// The same, straight into the log.
    pub fn start_log_load(&self, more: &[&str]) -> anyhow::Result<TrialLoad> {
        let mut arguments = vec!["load".to_owned()];
        arguments.push(format!("--kafka={}", self.services.kafka.bootstrap()));
        arguments.push(format!("--groups={}", self.cluster.options.groups));
        // A trial's faults hold batches back for as long as the machine takes to recover.
        arguments.push(format!("--give-up-s={}", HANG_MAX.as_secs()));
        arguments.push(format!("--allowed-lateness-s={}", self.cluster.options.allowed_lateness_ms / 1_000));
        arguments.push(format!("--out-of-orderness-s={}", self.cluster.options.out_of_orderness_ms / 1_000));
        let mix = "--quiet --behind-s=150 --ads=200 --clicks=30000 --rate=3000 --hot-percent=10 --duplicate-percent=3 \
                   --out-of-order-percent=3 --late-percent=1 --beyond-horizon-percent=0.5 --invalid-percent=2 \
                   --malformed-percent=0.05 --shared-event-percent=1 --http-batch=100";
        arguments.extend(mix.split_whitespace().map(str::to_owned));
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Ok(TrialLoad::start(LoadArguments::try_parse_from(arguments)?.options))
    }

    /// A whole load, to its last acknowledgement.
    pub async fn load(&self, more: &[&str]) -> anyhow::Result<LoadSummary> {
        self.start_load(more)?.end().await
    }

    /// A load by these arguments alone, as a user would type them.
    pub async fn load_exactly(&self, arguments: &[String]) -> anyhow::Result<LoadSummary> {
        run(LoadArguments::try_parse_from(arguments)?.options).await
    }

    /// Waits until every shard has read to the end of the log and PostgreSQL holds at least as many clicks as
    /// expected; then checks that they are exactly those.
    pub async fn settle_and_check(&self, summary: &LoadSummary) -> anyhow::Result<()> {
        let settled = self.settle(summary).await;
        // Also where it never settled: which windows are wrong says more than that it took too long.
        let checked = checks::require_none(&self.violations(summary).await?);
        match (settled, checked) {
            (Err(late), Err(wrong)) => Err(wrong.context(late)),
            (settled, checked) => settled.and(checked),
        }
        .with_context(|| self.cluster.log_tails())
    }

    pub async fn settle(&self, summary: &LoadSummary) -> anyhow::Result<()> {
        let bootstrap = self.services.kafka.bootstrap();
        let ends = tokio::task::spawn_blocking(move || oracle::end_offsets(&bootstrap, RAW_CLICKS)).await??;
        eventually_by_progress("all shards have read to the end of the log", async || {
            let view = self.cluster.client.cluster().await?;
            checks::require_none(&ct2_offset_chain::check_read_to_end(&view, &ends))?;
            for group in &view.groups {
                anyhow::ensure!(
                    group.published_revision >= group.newest_revision,
                    "windows are published up to revision {} of {}",
                    group.published_revision,
                    group.newest_revision
                );
            }
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        eventually_by_progress("PostgreSQL has the windows", async || {
            let (clicks, _) = self.database.stream_progress().await?;
            let late = self.database.late_valid().await?;
            anyhow::ensure!(clicks >= summary.counted, "{clicks} of {} clicks are there", summary.counted);
            anyhow::ensure!(late >= summary.late_beyond, "{late} of {} late clicks are there", summary.late_beyond);
            Ok::<_, anyhow::Error>(())
        })
        .await
    }

    /// What differs between the generator's tally, a naive recount of the log, and the rows in PostgreSQL.
    pub async fn violations(&self, summary: &LoadSummary) -> anyhow::Result<Vec<Violation>> {
        let bootstrap = self.services.kafka.bootstrap();
        let (recount, late) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            Ok((Recount::of_log(&bootstrap)?, oracle::late_clicks(&bootstrap)?))
        })
        .await??;
        let counted = self.database.stream_counts().await?;
        // First what explains the rest.
        let mut violations = ct11_acknowledged_is_logged::check(
            &summary.tally.events.iter().collect(),
            &recount.events.iter().collect(),
        );
        let expected: Counts = summary.tally.expected().map(|line| ((line.ad_id, line.minute), line.clicks)).collect();
        violations.extend(ct1_conservation::check(&expected, &counted));
        violations.extend(ct1_conservation::check(&recount.counts_without(&late), &counted));
        let rows = self.database.ad_minutes().await?;
        violations.extend(ct12_users_and_costs::check(&recount.measures_without(&late), &rows));
        violations.extend(ct10_read_once::check(&self.view().await?, &recount.by_partition));
        // Those sent over HTTP never reach the log.
        if recount.malformed_records > summary.malformed {
            let detail =
                format!("{} malformed records in the log, {} sent", recount.malformed_records, summary.malformed);
            violations.push(Violation { invariant: Invariant::AcknowledgedIsLogged, detail });
        }
        let late_valid = self.database.late_valid().await?;
        if late_valid != summary.late_beyond {
            let detail = format!("{late_valid} late clicks in PostgreSQL, {} sent", summary.late_beyond);
            violations.push(Violation { invariant: Invariant::Conservation, detail });
        }
        Ok(violations)
    }

    /// Waits until the archive reaches the end of the log; then checks that it holds all of it, once.
    pub async fn check_archive(&self) -> anyhow::Result<()> {
        let bootstrap = self.services.kafka.bootstrap();
        let ends = tokio::task::spawn_blocking(move || oracle::end_offsets(&bootstrap, RAW_CLICKS)).await??;
        eventually_by_progress("the archive reaches the end of the log", async || {
            let archived = self.database.archived_to().await?;
            let missing = (0_u16..).zip(&ends).filter(|(shard, end)| archived.get(shard).unwrap_or(&0) < end).count();
            anyhow::ensure!(missing == 0, "{missing} shards are not archived to their end: {archived:?}");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        let bootstrap = self.services.kafka.bootstrap();
        let recount = tokio::task::spawn_blocking(move || Recount::of_log(&bootstrap)).await??;
        let (archived_clicks, archived_malformed) = self.database.archived_rows().await?;
        checks::require_none(&ct8_archive_is_whole::check(&ArchiveFacts {
            archived_to: self.database.archived_to().await?,
            breaks: self.database.archive_breaks().await?,
            archived_clicks,
            archived_malformed,
            end_offsets: ends,
            log_clicks: recount.clicks_in_log,
            log_malformed: recount.malformed_records,
        }))
    }

    /// Who owns what, by node.
    pub async fn shards_by_owner(&self) -> anyhow::Result<BTreeMap<u64, Vec<u16>>> {
        let mut owners: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
        for (shard, seen) in self.view().await?.shards() {
            if let Some(owner) = seen.owner {
                owners.entry(owner).or_default().push(shard);
            }
        }
        Ok(owners)
    }
}

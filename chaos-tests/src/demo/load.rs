//! The load: clicks through both entrances, with everything that makes counting hard, and a kill on the way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clicktally_node::tools::load::{LoadOptions, LoadSummary, LoadWatch, run_watched};
use tokio::task::JoinHandle;

use super::kill;
use super::options::DemoOptions;
use super::report::Killed;
use super::screen::Screen;
use super::stage::{CAMPAIGNS, Stage};

/// Shares of the clicks at which the leader is killed, and restarted.
const KILL_AT_PERCENT: u64 = 40;
const RESTART_AT_PERCENT: u64 = 65;
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// Without a terminal, one line is printed in so many redraws.
const REDRAWS_PER_LINE: u32 = 50;

#[derive(Parser)]
struct LoadArguments {
    #[command(flatten)]
    options: LoadOptions,
}

pub(super) async fn drive(
    stage: &mut Stage,
    options: &DemoOptions,
    screen: &Screen,
) -> anyhow::Result<(LoadSummary, Option<Killed>)> {
    let watch = Arc::new(LoadWatch::default());
    let load = tokio::spawn(run_watched(load_options(stage, options)?, watch.clone()));
    let mut progress = Progress { watch, total: options.clicks, redraws: 0 };

    progress.until(KILL_AT_PERCENT, &load, screen).await;
    screen.end_progress();
    screen.say("kill -9 of the Raft leader …");
    let killed = kill::kill_the_leader(stage).await?;
    screen.say(&format!(
        "Node {} is gone; its {} shards, and all others, counted on after {} ms.",
        killed.node, killed.shards, killed.recovered_ms
    ));
    progress.until(RESTART_AT_PERCENT, &load, screen).await;
    screen.end_progress();
    screen.say(&format!("Restarting node {} …", killed.node));
    stage.cluster.node(killed.node)?.start(&[]).await?;
    progress.until(100, &load, screen).await;
    let summary = load.await.context("the load panicked")??;
    progress.draw(screen, true);
    screen.end_progress();
    Ok((summary, Some(killed)))
}

/// Parsed like a command line, so that the demo uses only what a user can.
fn load_options(stage: &Stage, options: &DemoOptions) -> anyhow::Result<LoadOptions> {
    let mut arguments = vec!["load".to_owned(), "--quiet".to_owned()];
    arguments.extend(stage.cluster.client.urls.iter().map(|url| format!("--url={url}")));
    arguments.extend([
        format!("--kafka={}", stage.services.kafka.bootstrap()),
        format!("--groups={}", stage.cluster.options.groups),
        format!("--clicks={}", options.clicks),
        format!("--rate={}", options.rate),
        format!("--seed={}", options.seed),
        format!("--campaigns={CAMPAIGNS}"),
        format!("--steady-ads={}", options.steady_ads),
        format!("--allowed-lateness-s={}", options.allowed_lateness_s),
        format!("--out-of-orderness-s={}", stage.cluster.options.out_of_orderness_ms / 1_000),
    ]);
    let mix = [
        "--http-percent=40",
        "--ads=1000",
        "--hot-percent=15",
        "--duplicate-percent=2",
        "--out-of-order-percent=3",
        "--late-percent=0.5",
        "--beyond-horizon-percent=0.2",
        // Not further, because the demo waits until every window is final.
        "--ahead-percent=1",
        "--ahead-max-s=20",
        "--shared-event-percent=1",
        "--invalid-percent=2",
        "--malformed-percent=0.01",
    ];
    arguments.extend(mix.map(str::to_owned));
    Ok(LoadArguments::try_parse_from(arguments)?.options)
}

struct Progress {
    watch: Arc<LoadWatch>,
    total: u64,
    redraws: u32,
}

impl Progress {
    /// Draws the progress until that many clicks are acknowledged, or the load has ended.
    async fn until(&mut self, percent: u64, load: &JoinHandle<anyhow::Result<LoadSummary>>, screen: &Screen) {
        while self.watch.acknowledged() * 100 < self.total * percent && !load.is_finished() {
            self.draw(screen, false);
            tokio::time::sleep(REDRAW_EVERY).await;
        }
    }

    fn draw(&mut self, screen: &Screen, is_last: bool) {
        if screen.is_live() || is_last || self.redraws.is_multiple_of(REDRAWS_PER_LINE) {
            let done = self.watch.acknowledged();
            let percent = (done * 100 / self.total.max(1)).min(100);
            screen.progress(&format!(
                "{percent:>3} %  {done} of {} clicks acknowledged, {} HTTP batches repeated",
                self.total,
                self.watch.repeats()
            ));
        }
        self.redraws += 1;
    }
}

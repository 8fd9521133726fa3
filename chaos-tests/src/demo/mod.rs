//! `make demo`: the main job on three nodes, with a `kill -9` of the node that leads Raft and owns shards while clicks
//! arrive. Then the batch, and one table that must agree.
//!
//! The modules are in the order of the demo.

mod options;
mod stage;

mod kill;
mod load;
mod settle;

mod verdict;

mod report;
mod screen;

pub use options::DemoOptions;
pub use report::Report;

use anyhow::Context;

use screen::Screen;
use stage::Stage;

/// Runs the demo; `Ok(false)` if the numbers do not agree.
pub async fn run(options: &DemoOptions) -> anyhow::Result<bool> {
    let screen = Screen;
    let mut stage = Stage::set_up(options, &screen).await.context("bringing the system up")?;
    let (summary, killed) = load::drive(&mut stage, options, &screen).await.context("driving the load")?;
    settle::stream(&stage, &summary, &screen).await.context("waiting for the stream")?;
    settle::archive(&stage, &screen).await.context("waiting for the archive")?;
    settle::batch(&stage, &screen).await.context("running the batch")?;
    let verdict = verdict::reach(&stage, &summary, &screen).await.context("comparing")?;
    let report = Report::new(&summary, &verdict, killed, stage.dashboard());
    report.write(&options.report)?;
    screen.table(&report, &summary, &verdict);
    screen.steady_grid(&verdict, options);
    if options.keep {
        stage.keep(&screen).await?;
    }
    stage.tear_down().await?;
    Ok(verdict.agrees())
}

//! Logs on disk hold these bytes, and newer builds replay them. If this test fails, a command has changed its meaning:
//! append a variant instead. The bytes after each version and checksum are bincode's, as its specification defines
//! them.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{
    AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, PlanMove,
};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::event_time::{EventTimeRules, Minute};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{Place, ShardId};
use clicktally_proto::money::Currency;

fn checkpoint() -> Checkpoint {
    let key = CellKey { minute: Minute(29_453_734), campaign_id: 7, ad_id: 42 };
    let counts = Counts { clicks: 2, invalid_clicks: 1, users: UserSketch::default(), ..Counts::default() };
    let mut places = [1 << 63 | 3, 1 << 63 | 19].map(|id| Place::of(ClickId(id)));
    Checkpoint {
        shard: ShardId(3),
        epoch: Epoch(5),
        from: 100,
        to: 104,
        watermark_ms: 1_767_224_040_000,
        complete_to_ms: 1_767_224_041_000,
        outcomes: OutcomeCounts { read: 4, counted: 2, invalid: 1, late: 1, ..OutcomeCounts::default() },
        cells: CellBlock::pack(&mut [CellDelta { key, counts }]),
        seen: vec![SeenBlock::pack(Minute(29_453_734), &mut places)],
    }
}

/// One command of each variant, in the order of their numbers.
fn commands() -> Vec<(Command, &'static str)> {
    let terms = CampaignTerms {
        campaign_id: 7,
        advertiser_id: 9,
        name: "spring".to_owned(),
        currency: Currency::USD,
        cost_per_click_micros: 250_000,
        budget_micros: -1,
        tolerance_micros: 0,
        effective_from_ms: 1_767_224_040_000,
        expected_revision: Some(3),
    };
    let record = NodeRecord { node: 2, http_address: "a:1".into(), peer_address: "b:2".into(), can_aggregate: true };
    let assignment = AssignShard { shard: ShardId(3), owner: Some(2), expected_epoch: Epoch(5) };
    let plan = PlanMove { shard: ShardId(3), heir: None, expected_epoch: Epoch(5) };
    vec![
        (
            Command::Configure(GroupSettings::new(1, EventTimeRules::default())),
            "0001fb8813fca0bb0d00fcc0270900fce0930400fc00000080",
        ),
        (Command::RegisterNode(record), "010203613a3103623a3201"),
        (Command::RemoveNode(2), "0202"),
        (Command::AssignShard(assignment), "0303010205"),
        (
            Command::Checkpoint(checkpoint()),
            "0403056468fd40dac2769b010000fd28dec2769b010000040200010100000fa6db850e010e2a000200010100010001fca66dc1010d01008080808080808080800101",
        ),
        (Command::SetCampaign(terms), "05070906737072696e6703555344fc20a107000100fd40dac2769b0100000103"),
        (Command::SinkProgress { published_revision: 300 }, "06fb2c01"),
        (Command::LeaseWorker { node: 2, incarnation: 70_000 }, "0702fc70110100"),
        (Command::PlanMove(plan), "08030005"),
        (Command::SetDraining { node: 2, is_draining: true }, "090201"),
        (Command::AnnounceLevel { node: 2, level: 2 }, "0a0202"),
        (Command::TermsExported { through_revision: 300 }, "0bfb2c01"),
        (Command::IdentifyLog { log: LogId(*b"0123456789abcdef") }, "0c30313233343536373839616263646566"),
    ]
}

#[test]
fn commands_are_written_and_read_as_they_ever_were() {
    for (number, (command, golden)) in (0..).zip(commands()) {
        let frame = codec::encode(&command).unwrap();
        assert_eq!(hex::encode(&frame[5..]), golden, "{command:?}");
        assert_eq!(frame[5], number, "the number of the variant");
        // As version 1 of the codec framed it.
        let payload = hex::decode(golden).unwrap();
        let version_1 = [&[1][..], &crc32fast::hash(&payload).to_le_bytes(), &payload].concat();
        assert_eq!(codec::decode::<Command>(&version_1).unwrap(), command);
        assert_eq!(codec::decode::<Command>(&frame).unwrap(), command);
    }
}

/// serde names all variants in its error, so a variant without golden bytes is noticed without a second list.
#[test]
fn every_command_has_golden_bytes_and_the_newest_has_the_level_of_this_build() {
    let error = serde_json::from_str::<Command>("\"NoSuchCommand\"").unwrap_err().to_string();
    let (_, known) = error.split_once("expected one of").unwrap();
    assert_eq!(commands().len(), known.matches('`').count() / 2, "add the golden bytes of the new command");
    let newest = commands().iter().map(|(command, _)| command.level()).max();
    assert_eq!(newest, Some(COMMAND_LEVEL), "COMMAND_LEVEL and the levels in Command::level do not fit");
}

//! `postwright warmup plan`: the calendar of a warm-up, with what is too steep in it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_core::{Clock, SystemClock};
use postwright_shaping::{Day, PRESETS, Schedule, Zone};
use serde_json::{Value, json};

use super::{Failure, output};

/// `postwright warmup ...`.
#[derive(Args)]
pub(crate) struct Warmup {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints the cap of each day.
    Plan {
        /// A preset, or caps with their days such as "100*7, 500*7, 2000".
        #[arg(long)]
        schedule: Schedule,
        /// The first day; today without it.
        #[arg(long, value_name = "YYYY-MM-DD")]
        start: Option<Day>,
        /// Whose midnight ends a day: UTC or a distance such as +01:00.
        #[arg(long, default_value = "UTC", allow_hyphen_values = true)]
        zone: Zone,
    },
    /// Lists the presets.
    Presets,
}

impl Warmup {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.what {
            What::Plan { schedule, start, zone } => {
                let start = start.unwrap_or_else(|| zone.day(SystemClock::new().now()));
                output::json(&plan(&schedule, start, zone))?;
            }
            What::Presets => {
                let list: Vec<Value> = PRESETS
                    .into_iter()
                    .map(|(name, caps, about)| json!({"name": name, "caps": caps, "about": about}))
                    .collect();
                output::json(&Value::Array(list))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn plan(schedule: &Schedule, start: Day, zone: Zone) -> Value {
    let mut total = 0_u64;
    let days: Vec<Value> = schedule
        .days()
        .iter()
        .zip(0_u32..)
        .map(|(cap, index)| {
            total += u64::from(*cap);
            json!({"day": index + 1, "date": start.plus(index).to_string(), "cap": cap, "total": total})
        })
        .collect();
    let warnings: Vec<String> = schedule.lint().iter().map(ToString::to_string).collect();
    let done = start.plus(u32::try_from(days.len()).unwrap_or(u32::MAX));
    json!({
        "zone": zone.to_string(),
        "days": days,
        "unlimited_from": done.to_string(),
        "warnings": warnings,
    })
}

//! The pace of `postwright serve`: from the rules file, with a state that survives restarts.
//!
//! Invariant: no daily cap and no warm-up counts further than the file on disk allows for: the counts of a day are
//! written with some set aside before any of that is used, so that a crash never lets a day's cap be exceeded. After
//! a crash, rates start as if their burst had just been used.
//!
//! The file: a first line `postwright-shaping 1 running` (or `orderly`), one line a warm-up, an empty line, one line
//! a count. It is written beside itself, synced and renamed.
//!
//! Not here: what the limits mean (the library), which connections there are (the library's delivery).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postwright::bounce::classify::Classifier;
use postwright::core::{Clock, Timestamp, World};
use postwright::shaping::{
    AdaptSettings, Bound, Dimension, Kind, Layer, MemoryTokenStore, Policy, Rules, Scope, Settings, Shaper,
    TokenStore,
};
use postwright::{Pace, Shaped};

use crate::commands::Failure;
use crate::config::Config;

/// How often the state is written.
const TURN: Duration = Duration::from_secs(1);
/// How many turns pass between two sweeps.
const SWEEP: u32 = 60;
/// Messages of a day's cap that are set aside until the next turn.
const AHEAD: u32 = 200;
/// A connection lives shorter than this, by the sum of the client's time-outs; so its lease needs no renewal.
const LEASE: Duration = Duration::from_secs(4 * 3600);
const HEAD: &str = "postwright-shaping 1";

/// Keeps the state of a shaper on disk.
pub(crate) struct Keeper {
    shaper: Arc<Shaper>,
    /// `None` if the counts are on a server, which keeps them.
    store: Option<Arc<MemoryTokenStore>>,
    clock: Arc<dyn Clock>,
    file: Option<PathBuf>,
}

/// A pace, and who keeps its state.
type Opened = (Arc<dyn Pace>, Arc<Keeper>);

/// The pace that the rules file describes, and who keeps its state; nothing without a rules file.
pub(crate) fn open(config: &Config, world: &World) -> Result<Option<Opened>, Failure> {
    let limits = limits_of_routes(config)?;
    let (rules, policy, shown) = match &config.delivery.shaping {
        Some(path) => {
            let rules = crate::commands::load_rules(path)?;
            (rules.clone(), rules.policy, path.display().to_string())
        }
        None if limits.is_empty() => return Ok(None),
        // The limits of routes alone, without the table of providers, which comes with every rules file.
        None => {
            let rules = Rules::parse("").map_err(|_| Failure::new("an empty rules file is none"))?;
            (rules, Policy::new(), "none".to_owned())
        }
    };
    let rules = Arc::new(rules);
    let file = config.delivery.shaping_state.clone();
    if let (None, Some(plan)) = (&file, rules.warmups.first()) {
        return Err(Failure::new(format!(
            "{shown}: warm-up.{} needs delivery.shaping_state, a file that keeps its progress over restarts",
            plan.name
        )));
    }
    let clock = world.clock.clone();
    let now = clock.now();
    let saved = match file.as_deref().map(read) {
        None => Saved::default(),
        Some(Ok(saved)) => saved,
        Some(Err(error)) => return Err(Failure::new(error)),
    };
    let (tokens, store) = counts(config, &saved, now)?;
    let mut adapt = AdaptSettings::default();
    adapt.rules.extend(rules.automation.iter().cloned());
    let mut settings = Settings::default();
    settings.lease = LEASE;
    // Whoever gives no rules does not ask for a pace that changes by itself.
    settings.adapt = config.delivery.shaping.as_ref().map(|_| adapt);
    let policy = limits.into_iter().fold(policy, Policy::with);
    let shaper = Arc::new(Shaper::with_settings(policy, tokens, settings));
    shaper.set_warmups(rules.warmups.clone(), now);
    let restored = shaper.restore_warmups(&saved.warmups);
    tracing::info!(rules = shown, restored, orderly = saved.orderly, "shaping");
    let (pools, providers) = (rules.clone(), rules.clone());
    let pace = Shaped::new(shaper.clone(), Arc::new(Classifier::built_in()))
        .with_egress(rules.egress.clone(), world.entropy.clone(), move |tenant, stream| {
            pools.pool_of(tenant, stream).map(Into::into)
        })
        .with_providers(move |hosts| providers.provider_of(hosts).map(Into::into));
    let keeper = Arc::new(Keeper { shaper, store, clock, file });
    // Before anything is sent: from here on daily caps keep to what is written.
    keeper.save(false).map_err(Failure::new)?;
    Ok(Some((Arc::new(pace), keeper)))
}

/// What `[[route]]` sections limit, by the name of the route, whatever source its mail leaves by.
fn limits_of_routes(config: &Config) -> Result<Vec<Layer>, Failure> {
    let mut layers = Vec::new();
    for route in &config.route {
        let Some(name) = route.name.as_ref().filter(|_| route.is_limited()) else { continue };
        let at_most = |number: &u32| Bound::AtMost(*number);
        let bounds = [
            (Kind::Concurrency, route.connections.as_ref().map(at_most)),
            (Kind::MessagesPerConnection, route.messages_per_connection.as_ref().map(at_most)),
            (Kind::Messages, route.rate.map(|rate| Bound::Rate(rate.0))),
        ];
        let by_site = Scope::of(&[Dimension::Site]);
        let mut layer = Layer::of(Dimension::Site, name).named(&format!("[[route]] {name}"));
        for (kind, bound) in bounds {
            if let Some(bound) = bound {
                layer = layer.set_by(by_site, kind, &[bound]).map_err(Failure::new)?;
            }
        }
        layers.push(layer);
    }
    Ok(layers)
}

/// Where it is counted: on a server, or here, which then has to be kept.
type Counts = (Arc<dyn TokenStore>, Option<Arc<MemoryTokenStore>>);

fn counts(config: &Config, saved: &Saved, now: Timestamp) -> Result<Counts, Failure> {
    if let Some(shared) = crate::shared_counts::open(&config.delivery)? {
        return Ok((shared, None));
    }
    let store = match &saved.counts {
        None => MemoryTokenStore::new(),
        Some(counts) => MemoryTokenStore::restore(counts, !saved.orderly, now),
    };
    let store = Arc::new(store);
    Ok((store.clone(), Some(store)))
}

/// Delivers while somebody keeps the state, if there is one to keep.
pub(crate) async fn kept(keeper: Option<&Arc<Keeper>>, delivering: impl Future<Output = ()>) {
    match keeper {
        None => delivering.await,
        Some(keeper) => {
            keeper.run(delivering).await;
            keeper.close();
        }
    }
}

impl Keeper {
    /// What it keeps.
    pub(crate) fn shaper(&self) -> Arc<Shaper> {
        self.shaper.clone()
    }

    /// Writes the state every second until `stop` resolves.
    async fn run(self: &Arc<Self>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        for turn in 1_u32.. {
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(TURN) => {}
            }
            if turn % SWEEP == 0 {
                self.shaper.sweep(self.clock.now());
            }
            let keeper = self.clone();
            let saved = tokio::task::spawn_blocking(move || keeper.save(false)).await;
            match saved {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "the state of shaping was not written; daily caps wait")
                }
                Err(error) => tracing::error!(%error, "writing the state of shaping"),
            }
        }
    }

    /// Writes the last state, of an orderly end.
    fn close(&self) {
        if let Err(error) = self.save(true) {
            tracing::error!(%error, "the last state of shaping was not written");
        }
    }

    fn save(&self, orderly: bool) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let warmups = self.shaper.save_warmups();
        let Some(store) = &self.store else {
            let end = if orderly { "orderly" } else { "running" };
            return replace(file, &format!("{HEAD} {end}\n{warmups}\n"))
                .map_err(|error| format!("{}: {error}", file.display()));
        };
        if orderly {
            let text = format!("{HEAD} orderly\n{warmups}\n{}", store.snapshot());
            return replace(file, &text).map_err(|error| format!("{}: {error}", file.display()));
        }
        let checkpoint = store.checkpoint(AHEAD);
        let text = format!("{HEAD} running\n{warmups}\n{}", checkpoint.text);
        replace(file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
        checkpoint.written();
        Ok(())
    }
}

/// What a state file says.
#[derive(Default)]
struct Saved {
    orderly: bool,
    warmups: String,
    /// `None` if there is no file yet.
    counts: Option<String>,
}

fn read(path: &Path) -> Result<Saved, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(format!("delivery.shaping_state: {}: {error}", path.display())),
    };
    let foreign =
        || format!("delivery.shaping_state: {} is not a state of shaping; name another file", path.display());
    let (head, rest) = text.split_once('\n').ok_or_else(foreign)?;
    let end = head.strip_prefix(HEAD).ok_or_else(foreign)?.trim();
    let (warmups, counts) = match rest.strip_prefix('\n') {
        Some(counts) => ("", counts),
        None => rest.split_once("\n\n").ok_or_else(foreign)?,
    };
    Ok(Saved { orderly: end == "orderly", warmups: warmups.to_owned(), counts: Some(counts.to_owned()) })
}

/// Either the old text or the new one is there, also after a power cut.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

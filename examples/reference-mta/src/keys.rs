//! The keys that `serve` signs and seals with: read at start, and again at SIGHUP.
//!
//! Invariant: keys change all together or not at all. If one of the new ones cannot be used, the old ones stay, an error
//! is logged, and no message is lost or goes out unsigned for it.
//!
//! Not here: signing (mta), the rotation's steps (dkim).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postwright::dkim::arc::Sealer;
use postwright::dkim::{KeyStore, MemoryKeyStore, Provider, ReloadableKeyStore, Signer, SigningKey};
use postwright::{MessagePolicy, SealForwarded, SignOriginated, Visit};
use postwright_core::{Domain, Timestamp, World};

use crate::commands::Failure;
use crate::config::{ArcKey, Config, DkimKey, Network};
use crate::rotation_file::RotationFile;

/// The keys in use, and where they came from.
pub(crate) struct Keys {
    signing: Arc<ReloadableKeyStore>,
    sealing: Arc<SealForwarded>,
    tenants: Arc<std::sync::RwLock<Vec<(Network, String)>>>,
    world: World,
}

impl Keys {
    pub(crate) fn load(config: &Config, world: &World) -> Result<Keys, Failure> {
        let loaded = Loaded::read(config, world.clock.now())?;
        let (resolver, clock) = (world.resolver.clone(), world.clock.clone());
        let sealing = SealForwarded::new(config.hostname.clone(), loaded.sealer, resolver, clock);
        Ok(Keys {
            signing: Arc::new(ReloadableKeyStore::new(loaded.keys)),
            sealing: Arc::new(sealing),
            tenants: Arc::new(std::sync::RwLock::new(loaded.tenants)),
            world: world.clone(),
        })
    }

    /// Whether all keys can be read and used, as at a start.
    pub(crate) fn check(config: &Config, now: Timestamp) -> Result<(), Failure> {
        Loaded::read(config, now).map(drop)
    }

    /// What they do to messages: seal what strangers sent, sign what we originate.
    pub(crate) fn policies(&self) -> [Arc<dyn MessagePolicy>; 2] {
        let signing: Arc<dyn KeyStore> = self.signing.clone();
        let tenants = self.tenants.clone();
        let tenant_of = move |visit: &Visit<'_>| {
            let tenants = tenants.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let found = tenants.iter().find(|(network, _)| network.contains(visit.peer.ip()));
            found.map(|(_, tenant)| tenant.clone())
        };
        let signing = SignOriginated::new(signing, self.world.clock.clone()).with_tenants(tenant_of);
        [self.sealing.clone(), Arc::new(signing)]
    }

    /// Reads the configuration's key sections and their files again.
    pub(crate) fn reload(&self, file: Option<&Path>) {
        let Some(file) = file else {
            return tracing::warn!("SIGHUP: there is no configuration file to read again");
        };
        let loaded = Config::load(file).and_then(|config| Loaded::read(&config, self.world.clock.now()));
        match loaded {
            Ok(loaded) => {
                let (count, seals) = (loaded.count, loaded.sealer.is_some());
                *self.tenants.write().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded.tenants;
                self.signing.replace(loaded.keys);
                self.sealing.replace(loaded.sealer);
                tracing::info!(keys = count, seals, "SIGHUP: new keys are in use");
            }
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the keys were not read again; the old ones stay in use")
            }
        }
    }
}

/// Keys that were read and can all be used.
struct Loaded {
    keys: MemoryKeyStore,
    count: usize,
    tenants: Vec<(Network, String)>,
    sealer: Option<Sealer>,
}

impl Loaded {
    fn read(config: &Config, now: Timestamp) -> Result<Loaded, Failure> {
        let mut loaded = Loaded { keys: MemoryKeyStore::new(), count: 0, tenants: Vec::new(), sealer: None };
        for key in &config.dkim {
            let Some((selector, file)) = which(key, now)? else { continue };
            let signer = signer(&key.domain, &selector, &file)?;
            loaded.keys.insert(signer, key.tenant.as_deref());
            loaded.count += 1;
            if let Some(tenant) = &key.tenant {
                loaded.tenants.extend(key.from.iter().map(|network| (*network, tenant.clone())));
            }
        }
        loaded.sealer = config.arc.as_ref().map(|key| sealer(key, config.hostname.as_str())).transpose()?;
        Ok(loaded)
    }
}

/// The selector and the key file of a section: those it names, or those of its rotation's active key.
fn which(key: &DkimKey, now: Timestamp) -> Result<Option<(String, PathBuf)>, Failure> {
    let Some(path) = &key.rotation else {
        return Ok(key.selector.clone().zip(key.key.clone()));
    };
    let mut file = RotationFile::load(path)?;
    if file.domain != key.domain {
        let (shown, other) = (path.display(), &file.domain);
        return Err(Failure::new(format!("{shown} is for {other}, not for {}", key.domain)));
    }
    // A key whose time has come signs, whether the command that writes the file has run since or not.
    file.rotation.advance(now);
    let Some(selector) = file.rotation.signing() else {
        tracing::warn!(rotation = %path.display(), domain = %key.domain, "no key is active yet; it signs nothing");
        return Ok(None);
    };
    Ok(file.key_file(selector).map(|file| (selector.to_string(), file)))
}

fn read_key(key: &str, path: &Path) -> Result<SigningKey, Failure> {
    let file = std::fs::read(path).map_err(|error| Failure::file(key, path, &error))?;
    let wrong = |error| Failure::new(format!("{key} {}: {error}", path.display()));
    SigningKey::read(Provider::ring(), &file).map_err(wrong)
}

fn signer(domain: &Domain, selector: &str, path: &Path) -> Result<Signer, Failure> {
    let wrong =
        |what: &dyn std::fmt::Display| Failure::new(format!("[[dkim]] {domain}, {selector:?}: {what}"));
    let selector = selector.parse().map_err(|error| wrong(&error))?;
    Signer::new(read_key("dkim.key", path)?, domain.clone(), selector).map_err(|error| wrong(&error))
}

fn sealer(key: &ArcKey, authserv_id: &str) -> Result<Sealer, Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("[arc] {}: {what}", key.domain));
    let selector = key.selector.parse().map_err(|error| wrong(&error))?;
    Sealer::new(read_key("arc.key", &key.key)?, key.domain.clone(), selector, authserv_id)
        .map_err(|error| wrong(&error))
}

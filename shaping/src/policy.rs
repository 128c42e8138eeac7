//! Which limits apply to which path: [`Policy`], a stack of [`Layer`]s.
//!
//! Invariant: resolving depends on the layers and the path alone, never on the order of a hash map. Layers are
//! applied from the general to the particular: defaults, provider, site, domain, source; of two alike, the later
//! one last. A setting replaces the one that an earlier layer made in the same slot.
//!
//! A slot is a kind (`messages`), or a kind and the scope it was set *by*. Tenants, streams and pools always have
//! slots of their own: a tenant's allowance comes on top of what the receiver allows, never in its place.
//!
//! Not here: the file format (`rules`), counting.

use std::sync::Arc;

use crate::limit::{Bound, Dimension, Kind, Scope};
use crate::path::Path;

/// What one layer says about one slot.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Setting {
    kind: Kind,
    by: Option<Scope>,
    /// Several hold at once; none unsets what earlier layers said.
    bounds: Vec<Bound>,
}

/// Settings for the paths that a condition selects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    name: Arc<str>,
    when: Vec<(Dimension, Box<str>)>,
    settings: Vec<Setting>,
}

/// A bound does not fit the kind that it was set for, such as a rate for a concurrency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{layer}: {kind} cannot be {bound}: concurrency and the limits of a connection are plain numbers, \
         the others are rates, and only messages can be daily"
)]
pub struct BoundError {
    /// The layer.
    pub layer: Arc<str>,
    /// The kind.
    pub kind: Kind,
    /// The bound that does not fit.
    pub bound: Bound,
}

impl Layer {
    /// A layer for all paths.
    pub fn defaults() -> Layer {
        Layer { name: "defaults".into(), when: Vec::new(), settings: Vec::new() }
    }

    /// A layer for the paths with this value in this dimension.
    pub fn of(dimension: Dimension, value: &str) -> Layer {
        let name = format!("{} {value}", dimension.as_str()).into();
        Layer { name, when: vec![(dimension, value.into())], settings: Vec::new() }
    }

    /// The same layer for those of its paths that also have this value.
    #[must_use]
    pub fn and(mut self, dimension: Dimension, value: &str) -> Layer {
        self.name = format!("{} {} {value}", self.name, dimension.as_str()).into();
        self.when.push((dimension, value.into()));
        self
    }

    /// The same layer under another name in explanations.
    #[must_use]
    pub fn named(mut self, name: &str) -> Layer {
        self.name = name.into();
        self
    }

    /// Sets a kind, in place of what earlier layers said. Several bounds hold at once; none unsets.
    pub fn set(self, kind: Kind, bounds: &[Bound]) -> Result<Layer, BoundError> {
        let by = self.has_own_slots().then(|| self.scope());
        self.put(Setting { kind, by, bounds: bounds.to_vec() })
    }

    /// Sets a kind by a scope of its own, beside what else is set for the kind.
    pub fn set_by(self, scope: Scope, kind: Kind, bounds: &[Bound]) -> Result<Layer, BoundError> {
        self.put(Setting { kind, by: Some(scope), bounds: bounds.to_vec() })
    }

    fn put(mut self, setting: Setting) -> Result<Layer, BoundError> {
        if let Some(bound) = setting.bounds.iter().find(|bound| !setting.kind.takes(bound)) {
            return Err(BoundError { layer: self.name, kind: setting.kind, bound: *bound });
        }
        self.settings.retain(|other| (other.kind, other.by) != (setting.kind, setting.by));
        self.settings.push(setting);
        Ok(self)
    }

    /// The layer's name in explanations.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn has(&self, dimension: Dimension) -> bool {
        self.when.iter().any(|(other, _)| *other == dimension)
    }

    /// Pools, tenants and streams are limited beside the receivers' limits, not instead of them.
    fn has_own_slots(&self) -> bool {
        [Dimension::Pool, Dimension::Tenant, Dimension::Stream].into_iter().any(|own| self.has(own))
    }

    /// By what the layer's settings are shared: what it selects by, completed to (source, destination).
    pub fn scope(&self) -> Scope {
        let mut dimensions: Vec<Dimension> = self.when.iter().map(|(dimension, _)| *dimension).collect();
        if !self.has_own_slots() {
            if !self.has(Dimension::Source) {
                dimensions.push(Dimension::Source);
            }
            let to = [Dimension::Domain, Dimension::Site, Dimension::Provider];
            if !to.into_iter().any(|to| self.has(to)) {
                dimensions.push(Dimension::Site);
            }
        }
        Scope::of(&dimensions)
    }

    fn selects(&self, path: &Path) -> bool {
        self.when.iter().all(|(dimension, value)| path.value(*dimension) == Some(value))
    }

    /// How particular it is: source before domain before site before provider.
    fn rank(&self) -> u8 {
        let weight =
            [(Dimension::Source, 8), (Dimension::Domain, 4), (Dimension::Site, 2), (Dimension::Provider, 1)];
        weight.into_iter().filter(|(dimension, _)| self.has(*dimension)).map(|(_, weight)| weight).sum()
    }
}

/// All layers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    layers: Vec<Layer>,
}

/// One bound that applies to a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// What is counted.
    pub kind: Kind,
    /// Who shares it.
    pub scope: Scope,
    /// How much.
    pub bound: Bound,
    /// The layer that set it.
    pub origin: Arc<str>,
}

impl Policy {
    /// No limits.
    pub fn new() -> Policy {
        Policy::default()
    }

    /// With one more layer, after those of its rank.
    #[must_use]
    pub fn with(mut self, layer: Layer) -> Policy {
        let place = self.layers.partition_point(|other| other.rank() <= layer.rank());
        self.layers.insert(place, layer);
        self
    }

    /// The layers in the order in which they are applied.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The dimensions in which all paths agree that share any limit of this policy.
    pub(crate) fn common_scope(&self) -> Scope {
        let scopes = self.layers.iter().flat_map(|layer| {
            let counted = |setting: &&Setting| {
                !matches!(setting.kind, Kind::MessagesPerConnection | Kind::RecipientsPerMessage)
            };
            let settings = layer.settings.iter().filter(counted);
            settings.map(|setting| setting.by.unwrap_or_else(|| layer.scope()))
        });
        scopes.fold(Scope::of(&Dimension::ALL), Scope::and)
    }

    /// What applies to a path, ordered by kind and scope.
    pub fn resolve(&self, path: &Path) -> Vec<Applied> {
        let mut slots: Vec<(Kind, Option<Scope>, &Layer, &[Bound])> = Vec::new();
        for layer in self.layers.iter().filter(|layer| layer.selects(path)) {
            for setting in &layer.settings {
                slots.retain(|(kind, by, ..)| (*kind, *by) != (setting.kind, setting.by));
                slots.push((setting.kind, setting.by, layer, &setting.bounds));
            }
        }
        slots.sort_by_key(|(kind, by, ..)| (*kind, *by));
        let applied = slots.into_iter().flat_map(|(kind, by, layer, bounds)| {
            let scope = by.unwrap_or_else(|| layer.scope());
            let origin = Arc::clone(&layer.name);
            bounds.iter().map(move |bound| Applied {
                kind,
                scope,
                bound: *bound,
                origin: Arc::clone(&origin),
            })
        });
        applied.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;

    fn rate(text: &str) -> Bound {
        Bound::Rate(text.parse::<Rate>().unwrap())
    }

    fn shown(policy: &Policy, path: &Path) -> Vec<String> {
        let applied = policy.resolve(path);
        applied.iter().map(|a| format!("{} {} by {} ({})", a.kind, a.bound, a.scope, a.origin)).collect()
    }

    fn path() -> Path {
        Path::to("example.org".parse().unwrap()).from_source("a").at_provider("gmail").for_tenant("acme")
    }

    #[test]
    fn the_particular_replaces_the_general_whatever_the_order_of_adding() {
        let layers = [
            Layer::of(Dimension::Domain, "example.org").set(Kind::Messages, &[rate("5/s")]).unwrap(),
            Layer::defaults()
                .set(Kind::Messages, &[rate("1/s")])
                .and_then(|layer| layer.set(Kind::Concurrency, &[Bound::AtMost(3)]))
                .unwrap(),
            Layer::of(Dimension::Provider, "gmail").set(Kind::Messages, &[rate("2/s"), rate("9/h")]).unwrap(),
        ];
        let policy = layers.into_iter().fold(Policy::new(), Policy::with);
        let concurrency = "concurrency 3 by source+site (defaults)";
        assert_eq!(
            shown(&policy, &path()),
            ["messages 5/s by source+domain (domain example.org)", concurrency]
        );
        let other = Path { domain: "example.net".parse().unwrap(), ..path() };
        assert_eq!(
            shown(&policy, &other),
            [
                "messages 2/s by source+provider (provider gmail)",
                "messages 9/h by source+provider (provider gmail)",
                concurrency
            ]
        );
    }

    #[test]
    fn tenants_come_on_top_and_an_empty_setting_unsets() {
        let policy = Policy::new()
            .with(Layer::defaults().set(Kind::Messages, &[rate("1/s")]).unwrap())
            .with(Layer::of(Dimension::Tenant, "acme").set(Kind::Messages, &[rate("9/h")]).unwrap());
        assert_eq!(
            shown(&policy, &path()),
            ["messages 1/s by source+site (defaults)", "messages 9/h by tenant (tenant acme)"]
        );
        let unset = policy.with(Layer::of(Dimension::Source, "a").set(Kind::Messages, &[]).unwrap());
        assert_eq!(shown(&unset, &path()), ["messages 9/h by tenant (tenant acme)"]);
    }

    #[test]
    fn a_bound_must_fit_its_kind() {
        assert!(Layer::defaults().set(Kind::Concurrency, &[rate("1/s")]).is_err());
        assert!(Layer::defaults().set(Kind::Messages, &[Bound::AtMost(1)]).is_err());
    }
}

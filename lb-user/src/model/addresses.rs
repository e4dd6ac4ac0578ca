//! Addresses from `serviceCIDRs` for the services that name none.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Family, Model, Service, ServiceName};

/// Which service holds which addresses of the ranges. Kept as JSON (`{"namespace/name": ["address"]}`), it
/// gives every service the same address again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allocations {
    by_name: BTreeMap<String, Vec<IpAddr>>,
}

/// A service could not be given an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Every address of the family's ranges is held by a service of the model.
    #[error(
        "serviceCIDRs {ranges} is full: no free {family} address for service {service}; \
         widen it, add a range, or remove services"
    )]
    Full {
        /// The service that gets none.
        service: ServiceName,
        /// The family it wants.
        family: Family,
        /// The ranges of that family.
        ranges: Ranges,
    },
    /// The service wants an address of a family that has no range.
    #[error(
        "service {service} has no address and serviceCIDRs has no {family} range to give it one from; \
         add a range or an address"
    )]
    NoRange {
        /// The service that gets none.
        service: ServiceName,
        /// The family it wants.
        family: Family,
    },
}

/// Ranges as a message lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(pub Vec<IpNet>);

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl Allocations {
    /// Gives every service of `model` that wants addresses (`wants`) its own from `service_cidrs`.
    ///
    /// A service keeps what it was given before, unless its range is gone or another service names that address
    /// itself. A new one gets the first free address from a place that its name determines. What belongs to a
    /// service that is no longer in the model stays with it until a range is full.
    ///
    /// # Errors
    /// A range is full or missing. Then neither the allocations nor the model have changed.
    pub fn assign(&mut self, model: &mut Model) -> Result<(), AddressError> {
        let mut pool = Pool::new(model);
        let mut given = BTreeMap::new();
        let mut absent = self.by_name.clone();
        for service in model.services.values().filter(|service| !service.wants.is_empty()) {
            let key = service.name.to_string();
            let before = absent.remove(&key).unwrap_or_default();
            let kept = before.into_iter().filter(|&held| {
                service.wants.contains(&Family::of(held)) && pool.contains(held) && pool.taken.insert(held)
            });
            given.insert(key, kept.collect::<Vec<_>>());
        }
        absent.retain(|_, held| {
            held.retain(|&address| pool.contains(address) && pool.taken.insert(address));
            !held.is_empty()
        });

        for service in model.services.values().filter(|service| !service.wants.is_empty()) {
            let key = service.name.to_string();
            let held = given.entry(key.clone()).or_default();
            for &family in &service.wants {
                if held.iter().any(|&address| Family::of(address) == family) {
                    continue;
                }
                let free = pool.take(&key, family).or_else(|| {
                    for address in std::mem::take(&mut absent).into_values().flatten() {
                        pool.taken.remove(&address);
                    }
                    pool.take(&key, family)
                });
                held.push(free.ok_or_else(|| pool.error(&service.name, family))?);
            }
            held.sort();
        }

        for (name, service) in model.services.iter_mut().filter(|(_, service)| !service.wants.is_empty()) {
            if let Some(held) = given.get(&name.to_string())
                && service.addresses != *held
            {
                Arc::make_mut(service).addresses.clone_from(held);
            }
        }
        given.append(&mut absent);
        self.by_name = given;
        Ok(())
    }
}

/// The ranges and what of them is taken.
struct Pool {
    ranges: Vec<IpNet>,
    taken: HashSet<IpAddr>,
}

impl Pool {
    /// The ranges of `model`, with the addresses taken that services name themselves, of whatever kind.
    fn new(model: &Model) -> Self {
        let explicit = model.services.values().filter(|service| service.wants.is_empty());
        let outside = |service: &Arc<Service>| {
            service.external_ips.iter().chain(&service.load_balancer_ips).copied().collect::<Vec<_>>()
        };
        let taken = explicit.flat_map(|service| service.addresses.iter().copied());
        let taken = taken.chain(model.services.values().flat_map(outside)).collect();
        Pool { ranges: model.service_cidrs.clone(), taken }
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.ranges.iter().filter(move |range| Family::of_range(range) == family)
    }

    /// Whether a service may hold `address`.
    fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address) && Usable::of(range).contains(address))
    }

    /// Takes the first free address of the family, from a start that `key` determines.
    fn take(&mut self, key: &str, family: Family) -> Option<IpAddr> {
        let free = self.of_family(family).find_map(|range| {
            let usable = Usable::of(range);
            let start = u128::from(fnv1a(key)) % usable.count;
            // One of any `taken + 1` different addresses is free.
            let tries = usable.count.min(self.taken.len() as u128 + 1);
            (0..tries)
                .map(|step| usable.address((start + step) % usable.count))
                .find(|address| !self.taken.contains(address))
        })?;
        self.taken.insert(free);
        Some(free)
    }

    fn error(&self, service: &ServiceName, family: Family) -> AddressError {
        let service = service.clone();
        let ranges: Vec<IpNet> = self.of_family(family).copied().collect();
        if ranges.is_empty() {
            AddressError::NoRange { service, family }
        } else {
            AddressError::Full { service, family, ranges: Ranges(ranges) }
        }
    }
}

/// The addresses of a range that a service can have: all but the network's own and IPv4's broadcast address,
/// which ranges of one or two addresses do not have (RFC 3021, RFC 6164).
struct Usable {
    first: u128,
    count: u128,
    family: Family,
}

impl Usable {
    fn of(range: &IpNet) -> Self {
        let family = Family::of_range(range);
        let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
        let all = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let (skipped, count) = match family {
            _ if host_bits < 2 => (0, all),
            Family::V4 => (1, all - 2),
            Family::V6 => (1, all - 1),
        };
        Usable { first: number(range.network()) + skipped, count, family }
    }

    fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family
            && number(address).checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// The address at `offset`, which is below `count`.
    fn address(&self, offset: u128) -> IpAddr {
        let number = self.first + offset;
        match self.family {
            // An IPv4 range ends within 32 bits.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// FNV-1a with 64 bits: written down, so that it stays the same in every build.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;

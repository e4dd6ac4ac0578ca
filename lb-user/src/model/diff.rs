//! What changed from one model to the next.

use std::sync::Arc;

use super::{Model, ServiceName};

/// Names of the services that were added, removed or changed between `old` and `new`, in order.
///
/// A service that stayed the same gets its old `Arc` in `new`, so that a later comparison is one of pointers.
/// The ranges and the hash seed are not looked at: they belong to no service.
pub fn changes(old: &Model, new: &mut Model) -> Vec<ServiceName> {
    let mut changed: Vec<ServiceName> =
        old.services.keys().filter(|name| !new.services.contains_key(name)).cloned().collect();
    for (name, service) in &mut new.services {
        match old.services.get(name) {
            Some(before) if before == service => *service = Arc::clone(before),
            _ => changed.push(name.clone()),
        }
    }
    changed.sort();
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Service, ServicePort};

    fn model(services: &[(&str, u16)]) -> Model {
        let services = services.iter().map(|&(name, port)| {
            let name = ServiceName { namespace: "default".into(), name: name.into() };
            let port = ServicePort { port, ..ServicePort::default() };
            let service = Service { name: name.clone(), ports: vec![port], ..Service::default() };
            (name, Arc::new(service))
        });
        Model { services: services.collect(), ..Model::default() }
    }

    #[test]
    fn names_what_changed_in_order_and_keeps_the_rest() {
        let old = model(&[("gone", 1), ("kept", 2), ("moved", 3), ("zone", 4)]);
        let mut new = model(&[("added", 1), ("kept", 2), ("moved", 30), ("zone", 4)]);

        let names: Vec<String> = changes(&old, &mut new).iter().map(|name| name.name.clone()).collect();

        assert_eq!(names, ["added", "gone", "moved"]);
        for (name, service) in &new.services {
            let carried = old.services.get(name).is_some_and(|before| Arc::ptr_eq(before, service));
            assert_eq!(carried, ["kept", "zone"].contains(&name.name.as_str()), "{name}");
        }
        assert_eq!(changes(&old.clone(), &mut old.clone()), []);
    }
}

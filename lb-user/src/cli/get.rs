//! `lb get`.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::output::{Format, print, table};
use crate::{
    maps::{Maps, Pins},
    observe::{
        self, backends, flows, services,
        view::{PortView, View},
    },
};

/// `lb get KIND [NAME]`
#[derive(Args)]
pub struct Get {
    /// What to show
    kind: Kind,
    /// Only this one: a service's name, a backend's address, a flow's client, a port's name
    name: Option<String>,
    /// Only services of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Frontends and the backends behind them
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Backends of every service
    #[value(alias = "backend", alias = "endpoints", alias = "ep")]
    Backends,
    /// Connections and exchanges that are going on
    #[value(alias = "flow")]
    Flows,
    /// Devices with programs
    #[value(alias = "port")]
    Ports,
}

impl Get {
    /// Prints what is asked for.
    pub fn run(&self, pins: &Pins) -> Result<()> {
        pins.check()?;
        let maps = Maps::open(&pins.maps())?;
        let view = View::read(&pins.view())?.unwrap_or_default();
        match self.kind {
            Kind::Services => self.services(&maps, &view),
            Kind::Backends => self.backends(&maps, &view),
            Kind::Flows => self.flows(&maps, &view),
            Kind::Ports => self.ports(&view),
        }
    }

    /// Keeps what was asked for; nothing left of what was named is an error.
    fn keep<T>(&self, kind: &str, mut all: Vec<T>, name: impl Fn(&T) -> &str) -> Result<Vec<T>> {
        if let Some(wanted) = &self.name {
            all.retain(|one| name(one) == wanted);
            if all.is_empty() {
                bail!("{kind} {wanted:?} not found");
            }
        }
        Ok(all)
    }

    fn in_namespace(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }

    fn services(&self, maps: &Maps, view: &View) -> Result<()> {
        let mut all = services::services(maps, view);
        all.retain(|service| self.in_namespace(&service.namespace));
        let all = self.keep("services", all, |service| &service.name)?;
        print(self.output, &all, || {
            let rows = all.iter().map(|service| {
                [
                    service.namespace.clone(),
                    service.name.clone(),
                    service.kind.clone(),
                    service.address.to_string(),
                    format!("{}/{}", service.port, service.protocol),
                    observe::ready(&service.backends),
                    service.packets.to_string(),
                    observe::bytes(service.bytes),
                ]
            });
            let header = ["NAMESPACE", "NAME", "TYPE", "ADDRESS", "PORT", "BACKENDS", "PACKETS", "BYTES"];
            table(header, rows.collect(), "No services found.")
        })
    }

    fn backends(&self, maps: &Maps, view: &View) -> Result<()> {
        let mut all = backends::backends(maps, view);
        all.retain(|backend| self.in_namespace(&backend.namespace));
        let all = self.keep("backends", all, |backend| &backend.address)?;
        print(self.output, &all, || {
            let rows = all.iter().map(|backend| {
                [
                    backend.namespace.clone(),
                    backend.service.clone(),
                    backend.frontend.clone(),
                    format!("{}:{}", backend.address, backend.port),
                    backend.weight.to_string(),
                    backend.state.clone(),
                    backend.reached_by.clone(),
                ]
            });
            let header = ["NAMESPACE", "SERVICE", "FRONTEND", "BACKEND", "WEIGHT", "STATE", "REACHED BY"];
            table(header, rows.collect(), "No backends found.")
        })
    }

    fn flows(&self, maps: &Maps, view: &View) -> Result<()> {
        let all = self.keep("flows", flows::flows(maps, view)?, |flow| &flow.client)?;
        print(self.output, &all, || {
            let rows = all.iter().map(|flow| {
                [
                    flow.protocol.to_owned(),
                    flow.client.clone(),
                    flow.frontend.clone(),
                    flow.backend.clone(),
                    none(flow.shown_as.as_deref().unwrap_or_default()),
                    flow.state.to_owned(),
                    format!("{}s", flow.idle),
                ]
            });
            let header = ["PROTOCOL", "CLIENT", "FRONTEND", "BACKEND", "AS", "STATE", "IDLE"];
            table(header, rows.collect(), "No flows found.")
        })
    }

    fn ports(&self, view: &View) -> Result<()> {
        let all = self.keep("ports", view.ports.clone(), |port: &PortView| &port.name)?;
        print(self.output, &all, || {
            let rows = all.iter().map(|port| {
                [
                    port.name.clone(),
                    none(&port.bridge),
                    port.role.clone(),
                    port.forward.clone(),
                    none(port.xdp.as_deref().unwrap_or_default()),
                    port.hooks.join(","),
                    port.ifindex.to_string(),
                ]
            });
            let header = ["NAME", "BRIDGE", "ROLE", "FORWARD", "XDP", "HOOKS", "IFINDEX"];
            table(header, rows.collect(), "No ports found.")
        })
    }
}

/// What stands for nothing in a table.
fn none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

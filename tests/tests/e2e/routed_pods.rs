//! Pods on veths that are no bridge's: the host routes to each, as Calico, the clouds' plugins, kindnet and CNI's `ptp`
//! have it.

use anyhow::Result;
use xtask::lab::{Lab, Pod};

/// Who routed pods send to.
#[derive(Clone, Copy)]
pub enum Gateway {
    /// 169.254.1.1, which proxy ARP answers for, and the port's link-local address: as Calico has it.
    Fixed,
    /// The bridge's address of the lab, which each port has: as `ptp` and kindnet have it.
    Own,
}

/// Takes a pod off the bridge and routes to it. There is always a proxied neighbour to be asked for, as pods have no
/// subnet.
pub fn route_to(lab: &Lab, pod: Pod, gateway: Gateway) -> Result<()> {
    let port = format!("veth-{}", pod.name);
    let (node, _) = lab.nodes().home(pod.network);
    let [host4, host6] = [format!("10.244.{}.1", pod.network), format!("fd00:244:{:x}::1", pod.network)];
    let (v4, v6) = (pod.ipv4(), pod.ipv6());
    lab.on(node, &format!("link set {port} nomaster"))?;
    lab.on(node, &format!("link set {port} up"))?;
    lab.on(pod.name, "addr flush dev eth0 scope global")?;
    lab.on(pod.name, &format!("addr add {v4}/32 dev eth0"))?;
    lab.on(pod.name, &format!("addr add {v6}/128 dev eth0 nodad"))?;
    let via = match gateway {
        Gateway::Fixed => {
            lab.sysctl(node, &format!("net/ipv4/conf/{port}/proxy_arp"), "1")?;
            lab.sysctl(node, &format!("net/ipv4/neigh/{port}/proxy_delay"), "0")?;
            lab.on(node, &format!("addr add fe80::1/64 dev {port} nodad"))?;
            ["169.254.1.1".to_owned(), "fe80::1".to_owned()]
        }
        Gateway::Own => {
            lab.on(node, &format!("addr add {host4}/32 dev {port}"))?;
            lab.on(node, &format!("addr add {host6}/128 dev {port} nodad"))?;
            [host4, host6]
        }
    };
    lab.on(node, &format!("route add {v4} dev {port}"))?;
    lab.on(node, &format!("-6 route add {v6} dev {port}"))?;
    lab.on(pod.name, &format!("route replace {} dev eth0 scope link", via[0]))?;
    lab.on(pod.name, &format!("route replace default via {} dev eth0 src {v4}", via[0]))?;
    if via[1] != "fe80::1" {
        lab.on(pod.name, &format!("-6 route replace {} dev eth0", via[1]))?;
    }
    lab.on(pod.name, &format!("-6 route replace default via {} dev eth0", via[1]))
}

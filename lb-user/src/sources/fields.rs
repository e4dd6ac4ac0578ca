//! Fields and values of a tree, read with a message for everything that is not right.

use std::{
    cmp::Reverse,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

use super::{
    problem::{Bad, Report},
    yaml::{Node, Value},
};
use crate::model::{Protocol, refused::Refusal};

/// The values of the fields `known` of the mapping `node`, in that order; null counts as left out.
///
/// Reports a node that is no mapping (then `None`), unknown fields with the nearest right name, and fields that
/// are there twice. `what` names the mapping with its article, like `a service`.
pub(super) fn fields<'n, 't, const N: usize>(
    node: &'n Node<'t>,
    what: &str,
    known: [&str; N],
    report: &mut Report<'_>,
) -> Option<[Option<&'n Node<'t>>; N]> {
    let Value::Map(entries) = &node.value else {
        report.say(node.at, format!("{what} is a mapping; write it with the fields {}", known.join(", ")));
        return None;
    };
    let mut found = [None; N];
    let mut first_at = [None; N];
    for (key, value) in entries {
        let Some(index) = known.iter().position(|name| *name == key.name) else {
            let advice = match nearest(&key.name, &known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the fields are {}", known.join(", ")),
            };
            report.say(key.at, format!("unknown field \"{}\" in {what}; {advice}", key.name));
            continue;
        };
        if let Some(first) = first_at[index] {
            let first = report.place(first);
            report.say(key.at, format!("field \"{}\" is given twice, first at {first}; keep one", key.name));
            continue;
        }
        first_at[index] = Some(key.at);
        found[index] = Some(value).filter(|value| !value.is_null());
    }
    Some(found)
}

/// The name of `known` that `text` was probably meant to be.
fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let text = text.to_lowercase();
    let distance = |name: &str| strsim::osa_distance(&text, &name.to_lowercase());
    // Of two that are equally near, the longer: letters are more often left out than added.
    let name = *known.iter().min_by_key(|name| (distance(name), Reverse(name.len())))?;
    (distance(name) * 2 <= name.len()).then_some(name)
}

/// The text of a scalar. `what` names the value with its article, like `a name`.
pub(super) fn text<'n>(node: &'n Node<'_>, what: &str) -> Result<&'n str, Bad> {
    match &node.value {
        Value::Scalar(text) => Ok(text),
        Value::Null => Err(Bad::new(node.at, format!("{what} is left empty; write one"))),
        Value::List(_) => {
            Err(Bad::new(node.at, format!("{what} is a single value, not a list; write one value")))
        }
        Value::Map(_) => {
            Err(Bad::new(node.at, format!("{what} is a single value, not a mapping; write one value")))
        }
    }
}

/// The items of a list. `what` names the list, like `ports`.
pub(super) fn list<'n, 't>(node: &'n Node<'t>, what: &str) -> Result<&'n [Node<'t>], Bad> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(Bad::new(
            node.at,
            format!("{what} is a list; write `{what}: [...]` or lines that begin with `-`"),
        )),
    }
}

/// A decimal number of the given range. `what` names it with its article, like `a weight`.
pub(super) fn number<T>(node: &Node<'_>, what: &str, range: RangeInclusive<T>) -> Result<T, Bad>
where
    T: FromStr + PartialOrd + Display,
{
    let text = text(node, what)?;
    let parsed = text.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| {
        let (low, high) = range.into_inner();
        Bad::new(node.at, format!("\"{text}\" is not {what}; write a whole number from {low} to {high}"))
    })
}

/// A port number, 1 to 65535.
pub(super) fn port(node: &Node<'_>) -> Result<u16, Bad> {
    number(node, "a port", 1..=u16::MAX)
}

/// `true` or `false`. `what` is the field's name.
pub(super) fn boolean(node: &Node<'_>, what: &str) -> Result<bool, Bad> {
    let text = text(node, what)?;
    text.parse().map_err(|_| Bad::new(node.at, format!("{what} is \"{text}\"; write true or false")))
}

/// One of the words `known`. `what` names it with its article, like `a type`.
pub(super) fn word<T: Copy>(node: &Node<'_>, what: &str, known: &[(&str, T)]) -> Result<T, Bad> {
    let text = text(node, what)?;
    if let Some((_, meant)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(*meant);
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let advice = match (nearest(text, &words), &words[..]) {
        (Some(near), _) => format!("did you mean \"{near}\"?"),
        (None, [others @ .., last]) if !others.is_empty() => format!("write {} or {last}", others.join(", ")),
        (None, _) => format!("write {}", words.concat()),
    };
    Err(Bad::new(node.at, format!("\"{text}\" is not {what}; {advice}")))
}

/// A transport protocol.
pub(super) fn protocol(node: &Node<'_>) -> Result<Protocol, Bad> {
    let text = text(node, "a protocol")?;
    match text.to_ascii_uppercase().as_str() {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        _ => Err(Bad::new(node.at, format!("\"{text}\" is not a protocol; write TCP, UDP or SCTP"))),
    }
}

/// A name, of a service or a namespace, that can stand in tables, paths and DNS names.
pub(super) fn name(node: &Node<'_>, what: &str) -> Result<String, Bad> {
    let text = text(node, what)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 253 || !text.chars().all(allowed) {
        let advice = "use up to 253 letters, digits, '-', '_' and '.'";
        return Err(Bad::new(node.at, format!("\"{text}\" cannot be {what}; {advice}")));
    }
    Ok(text.to_owned())
}

/// A range of addresses without bits behind its prefix.
pub(super) fn range(node: &Node<'_>) -> Result<IpNet, Bad> {
    let text = text(node, "a range")?;
    let range: IpNet = text.parse().map_err(|_| {
        Bad::new(node.at, format!("\"{text}\" is not a range of addresses; write one like 10.96.0.0/12"))
    })?;
    let whole = range.trunc();
    if range != whole {
        return Err(Bad::new(node.at, format!("{range} has bits set behind its prefix; write {whole}")));
    }
    Ok(range)
}

/// An address that traffic may be sent to. `what` names its part, like `a backend`.
pub(super) fn address(node: &Node<'_>, what: &str) -> Result<IpAddr, Bad> {
    let text = text(node, "an address")?;
    let address = text.parse().map_err(|_| {
        let advice = match text.parse::<SocketAddr>() {
            Ok(both) => format!("write address: {} and port: {}", both.ip(), both.port()),
            Err(_) => "write one like 10.96.0.10 or fd00::10".to_owned(),
        };
        Bad::new(node.at, format!("\"{text}\" is not an IP address; {advice}"))
    })?;
    admit(address, node, what)
}

/// `address`, which `node` holds, unless it is one that traffic may not be sent to. `what` names its part.
pub(super) fn admit(address: IpAddr, node: &Node<'_>, what: &str) -> Result<IpAddr, Bad> {
    match Refusal::of(address) {
        None => Ok(address),
        Some(refusal @ Refusal::Mapped(v4)) => {
            Err(Bad::new(node.at, format!("{address} cannot be {what}: it is {refusal}; write {v4}")))
        }
        Some(refusal) => {
            let advice = "use an address of your own network";
            Err(Bad::new(node.at, format!("{address} cannot be {what}: it is {refusal}; {advice}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name() {
        let known = ["name", "address", "addresses", "targetPort", "serviceCIDRs"];
        let cases = [
            ("adress", Some("address")),
            ("addreses", Some("addresses")),
            ("target_port", Some("targetPort")),
            ("servicecidrs", Some("serviceCIDRs")),
            ("naem", Some("name")),
            ("colour", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(nearest(text, &known), expected, "{text:?}");
        }
    }
}

//! Damaged configs: taken or refused, never a panic, and every message points into the text.

use proptest::prelude::*;

use super::*;

/// What [`services::ALL`] does not have.
const MORE: &str = "\
---
serviceCIDRs: ['fd00::/112']
hashSeed: 7f3a
services:
  - name: other
    address: 10.96.0.11
    ports: [{port: 80, targetPort: 8080, protocol: TCP}]
    backends: &pods [{address: 10.244.1.2}, {address: \"10.244.1.3\", weight: 2}]
  - {name: dns, namespace: kube-system, ports: [{port: 53, protocol: UDP, hostPort: 53}], backends: [{address: 10.244.1.2}]}
  - {name: sip, sessionAffinity: ClientIP, ports: [{port: 5060, protocol: SCTP}], backends: *pods}
";

#[test]
fn the_whole_texts_are_taken() {
    let loaded = parse_texts(&[("c.yaml", &format!("{}{MORE}", services::ALL))]);
    assert_eq!(loaded.unwrap_or_else(|error| panic!("{error}")).model.services.len(), 4);
}

proptest! {
    #[test]
    fn cut_and_overwritten_texts(
        kubernetes: bool,
        cut in 0.0..1.0_f64,
        wounds in prop::collection::vec((0.0..1.0_f64, "[-:{}\\[\\]*&!|>'\"%@#, \\n\\ta0~]{0,3}"), 0..4),
    ) {
        let whole = if kubernetes { testdata("kubernetes/bad.yaml") } else { format!("{}{MORE}", services::ALL) };
        let place = |text: &str, share: f64| (text.len() as f64 * share) as usize;
        let mut text = whole[..=place(&whole, cut).min(whole.len() - 1)].to_owned();
        for (share, wound) in wounds {
            let at = place(&text, share);
            text.replace_range(at..(at + wound.len()).min(text.len()), &wound);
        }
        let problems = match parse_texts(&[("c.yaml", &text)]) {
            Ok(loaded) => loaded.problems,
            Err(error) => error.problems,
        };
        let lines = text.split('\n').count() as u32;
        for problem in problems {
            let line = problem.place.at.map_or(1, |at| at.line);
            prop_assert!((1..=lines + 1).contains(&line), "{problem} in\n{text}");
            prop_assert!(problem.text.contains(';'), "{problem} says nothing to do");
        }
    }
}

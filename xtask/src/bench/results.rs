//! What was measured, and what follows from it.

use std::collections::BTreeMap;

/// What a workload measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// Place in tables.
    pub place: u32,
    /// Name.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// More is better; else less is.
    pub more: bool,
}

/// The contestant that most others are compared with.
pub const DIRECT: &str = "direct";

/// All measurements of one kind in a run.
pub struct Results {
    /// What was measured, in a word or two.
    pub title: &'static str,
    /// How, in words.
    pub how: String,
    /// The contestant that the others are compared with.
    pub base: &'static str,
    /// Names in the order of tables.
    pub contestants: Vec<&'static str>,
    /// By metric and contestant, one value a round.
    pub values: BTreeMap<Metric, BTreeMap<&'static str, Vec<f64>>>,
}

/// The middle of some values, and the quarters beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// First quartile.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// Third quartile.
    pub high: f64,
}

impl Spread {
    /// Of values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (values.len().checked_sub(1)?) as f64 * part;
            let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Spread { low: at(0.25)?, median: at(0.5)?, high: at(0.75)? })
    }
}

impl Results {
    /// Of contestants, nothing measured yet.
    pub fn new(
        title: &'static str,
        how: String,
        base: &'static str,
        contestants: Vec<&'static str>,
    ) -> Results {
        Results { title, how, base, contestants, values: BTreeMap::new() }
    }

    /// Notes one value.
    pub fn note(&mut self, metric: Metric, contestant: &'static str, value: f64) {
        self.values.entry(metric).or_default().entry(contestant).or_default().push(value);
    }

    /// What a contestant measured.
    pub fn spread(&self, metric: &Metric, contestant: &str) -> Option<Spread> {
        Spread::of(self.values.get(metric)?.get(contestant)?)
    }

    /// One contestant's values divided by another's, round by round.
    pub fn ratio(&self, metric: &Metric, contestant: &str, to: &str) -> Option<Spread> {
        let values = self.values.get(metric)?;
        let (ours, theirs) = (values.get(contestant)?, values.get(to)?);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Spread::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { low: 3.0, median: 3.0, high: 3.0 }));
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Some(Spread { low: 1.75, median: 2.5, high: 3.25 }));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let metric = Metric { place: 0, name: "m", unit: "u", more: true };
        let mut results = Results::new("", String::new(), "b", vec!["a", "b"]);
        for (a, b) in [(10.0, 5.0), (1.0, 0.5)] {
            results.note(metric, "a", a);
            results.note(metric, "b", b);
        }
        let ratio = results.ratio(&metric, "a", "b").map(|spread| (spread.low, spread.high));
        assert_eq!(ratio, Some((2.0, 2.0)));
        assert_eq!(results.ratio(&metric, "a", "c"), None);
    }
}

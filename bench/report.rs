//! Medians, ratios, tables.

use crate::metric::{ALL, Better, EDITS, FSYNC_KEPT, Metric};
use crate::peers::OURS;
use crate::relay::Counts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One measured value and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Name of the setting: storage and link.
    pub setting: String,
    /// Name of the peer.
    pub peer: String,
    /// Identifier of the metric.
    pub metric: &'static str,
    /// In the metric's unit.
    pub value: f64,
    /// Seconds of wall time of the work behind it, if it is a timing.
    pub wall: f64,
    /// CPU seconds of the peer's processes meanwhile.
    pub cpu: f64,
    /// What crossed the relay meanwhile, where there is one.
    pub network: Option<Counts>,
}

/// A piece of work that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Name of the setting.
    pub setting: String,
    /// Name of the peer.
    pub peer: String,
    /// Which phase.
    pub phase: String,
    /// Why.
    pub error: String,
}

/// Everything of one run of the harness.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Machine, kernel, parameters, load.
    pub about: BTreeMap<String, String>,
    /// Versions of the peers.
    pub versions: BTreeMap<String, String>,
    /// Settings in the order of measuring.
    pub settings: Vec<String>,
    /// Peers in the order of the table, ours first.
    pub peers: Vec<String>,
    /// Peers that are ceilings rather than competitors.
    pub ceilings: Vec<String>,
    /// All values.
    pub samples: Vec<Sample>,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// The middle value; the mean of the middle two for an even number. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        0 => sorted
            .get(sorted.len() / 2 - 1)
            .map(|lower| (lower + upper) / 2.0),
        _ => Some(upper),
    }
}

impl Report {
    /// Median of a metric, or its maximum where only the peak means something; and the number of values.
    pub fn value(&self, setting: &str, peer: &str, metric: &Metric) -> Option<(f64, usize)> {
        let values: Vec<f64> = self
            .samples
            .iter()
            .filter(|s| s.setting == setting && s.peer == peer && s.metric == metric.id)
            .map(|s| s.value)
            .collect();
        let value = match metric.peak {
            true => values.iter().copied().max_by(f64::total_cmp),
            false => median(&values),
        };
        value.map(|v| (v, values.len()))
    }

    /// How many times better ours is than the best competitor, and who that is.
    pub fn ratio(&self, setting: &str, metric: &Metric) -> Option<(f64, &str)> {
        let (mine, _) = self.value(setting, OURS, metric)?;
        let others = self.peers.iter().filter(|p| *p != OURS);
        let competitors = others
            .filter(|p| !self.ceilings.contains(p))
            .filter(|p| metric.id != EDITS.id || self.keeps_fsync(setting, p));
        let ratios = competitors.filter_map(|peer| {
            let (theirs, _) = self.value(setting, peer, metric)?;
            let ratio = match metric.better {
                Better::More => mine / theirs,
                Better::Less => theirs / mine,
            };
            ratio.is_finite().then_some((ratio, peer.as_str()))
        });
        ratios.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// An fsync that keeps nothing is no competition for one that does.
    fn keeps_fsync(&self, setting: &str, peer: &str) -> bool {
        self.value(setting, peer, &FSYNC_KEPT)
            .is_none_or(|(kept, _)| kept == 1.0)
    }

    /// One table per setting.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for setting in &self.settings {
            let _infallible = writeln!(out, "### {setting}\n\n{}", self.table(setting));
            let cpu = self.cpu_table(setting);
            let _infallible = writeln!(out, "CPU seconds of the peers' processes:\n\n{cpu}");
        }
        for f in &self.failures {
            let cause = f.error.lines().next().unwrap_or_default();
            let _infallible = writeln!(
                out,
                "- {}, {}, {}: not measured: {cause}",
                f.setting, f.peer, f.phase
            );
        }
        out
    }

    fn table(&self, setting: &str) -> String {
        let here = |peer: &&String| {
            let mut samples = self.samples.iter();
            samples.any(|s| s.setting == setting && s.peer == **peer)
        };
        let peers: Vec<&String> = self.peers.iter().filter(here).collect();
        let mut out = String::from("| | unit | n |");
        let mut line = String::from("|---|---|---:|");
        for peer in &peers {
            let _infallible = write!(out, " {peer} |");
            line.push_str("---:|");
        }
        let _infallible = writeln!(out, " ours against the best |\n{line}---|");
        for metric in ALL {
            out.push_str(&self.row(setting, &peers, metric).unwrap_or_default());
        }
        out
    }

    /// Where a machine is busy with other things, CPU time tells more than the clock.
    fn cpu_table(&self, setting: &str) -> String {
        let mut cells: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
        for s in self
            .samples
            .iter()
            .filter(|s| s.setting == setting && s.cpu > 0.0)
        {
            let row = cells.entry(s.metric).or_default();
            row.entry(&s.peer).or_default().push(s.cpu);
        }
        let peers: Vec<&str> = self.peers.iter().map(String::as_str).collect();
        let peers: Vec<&str> = peers
            .into_iter()
            .filter(|p| cells.values().any(|row| row.contains_key(p)))
            .collect();
        let mut out = format!("| | {} |\n|---|", peers.join(" | "));
        out.push_str(&"---:|".repeat(peers.len()));
        out.push('\n');
        for metric in ALL {
            let Some(row) = cells.get(metric.id) else {
                continue;
            };
            let _infallible = write!(out, "| {} |", metric.title);
            for peer in &peers {
                let cpu = row.get(peer).and_then(|values| median(values));
                let text = cpu.map_or_else(|| "-".to_owned(), number);
                let _infallible = write!(out, " {text} |");
            }
            out.push('\n');
        }
        out
    }

    fn row(&self, setting: &str, peers: &[&String], metric: &Metric) -> Option<String> {
        let values: Vec<Option<(f64, usize)>> = peers
            .iter()
            .map(|peer| self.value(setting, peer, metric))
            .collect();
        let n = values.iter().flatten().map(|(_, n)| *n).max()?;
        let mut row = format!("| {} | {} | {n} |", metric.title, metric.unit);
        for value in values {
            let text = value.map_or_else(|| "-".to_owned(), |(v, _)| number(v));
            let _infallible = write!(row, " {text} |");
        }
        let ratio = self.ratio(setting, metric);
        let ratio = ratio.map_or_else(
            || "-".to_owned(),
            |(ratio, peer)| format!("{}x ({peer})", number(ratio)),
        );
        let _infallible = writeln!(row, " {ratio} |");
        Some(row)
    }
}

/// Three significant digits, which is more than these measurements bear.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric;

    fn report(values: &[(&str, &Metric, f64)]) -> Report {
        let sample = |(peer, metric, value): &(&str, &Metric, f64)| Sample {
            setting: "local".into(),
            peer: (*peer).into(),
            metric: metric.id,
            value: *value,
            wall: 0.0,
            cpu: 0.0,
            network: None,
        };
        Report {
            about: BTreeMap::new(),
            versions: BTreeMap::new(),
            settings: vec!["local".into()],
            peers: ["skrin", "a", "b", "plain"].map(String::from).into(),
            ceilings: vec!["plain".into()],
            samples: values.iter().map(sample).collect(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better_than_the_best_competitor() {
        let more = &metric::SEQ_WRITE;
        let less = &metric::RSYNC;
        let report = report(&[
            ("skrin", more, 200.0),
            ("a", more, 100.0),
            ("b", more, 400.0),
            ("plain", more, 5000.0),
            ("skrin", less, 2.0),
            ("a", less, 8.0),
            ("b", less, 10.0),
        ]);
        assert_eq!(report.ratio("local", more), Some((0.5, "b")));
        assert_eq!(report.ratio("local", less), Some((4.0, "a")));
        assert_eq!(report.ratio("local", &metric::FIND_COLD), None);
    }

    #[test]
    fn an_fsync_that_keeps_nothing_does_not_compete() {
        let (edits, kept) = (&EDITS, &FSYNC_KEPT);
        let report = report(&[
            ("skrin", edits, 1000.0),
            ("a", edits, 20000.0),
            ("a", kept, 0.0),
            ("b", edits, 500.0),
            ("b", kept, 1.0),
        ]);
        assert_eq!(report.ratio("local", edits), Some((2.0, "b")));
    }

    #[test]
    fn the_table_names_median_and_number_of_runs() {
        let m = &metric::RSYNC;
        let report = report(&[
            ("skrin", m, 1.0),
            ("skrin", m, 3.0),
            ("skrin", m, 2.0),
            ("a", m, 4.0),
        ]);
        let text = report.markdown();
        let row = text.lines().find(|l| l.contains(m.title)).unwrap();
        assert!(
            row.ends_with("| s | 3 | 2.00 | 4.00 | 2.00x (a) |"),
            "{row}"
        );
    }

    #[test]
    fn peak_memory_is_the_most_of_all_phases() {
        let m = &metric::PEAK_MEMORY;
        let report = report(&[("skrin", m, 10.0), ("skrin", m, 90.0), ("skrin", m, 20.0)]);
        assert_eq!(report.value("local", "skrin", m), Some((90.0, 3)));
    }
}

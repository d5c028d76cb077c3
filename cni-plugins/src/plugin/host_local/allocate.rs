//! Which address comes next: pure.
//!
//! Round robin from the last one given out, so that an address stays unused as long as possible. An address that was
//! released a moment ago is taken only when there is no other: its old interface may still be going away.

use std::net::IpAddr;

use super::range::{Range, RangeSet, next};

#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    Fresh(IpAddr),
    /// The one that was released first of all, and where it stands in the list of releases.
    JustReleased(IpAddr, usize),
    Exhausted,
}

/// `released`: the place of an address in the list of recent releases, oldest first.
pub fn choose(
    set: &RangeSet,
    last: Option<IpAddr>,
    taken: impl Fn(IpAddr) -> bool,
    released: impl Fn(IpAddr) -> Option<usize>,
) -> Choice {
    let mut oldest: Option<(usize, IpAddr)> = None;
    for ip in Candidates::new(set, last) {
        if taken(ip) {
            continue;
        }
        match released(ip) {
            None => return Choice::Fresh(ip),
            Some(place) if oldest.is_none_or(|(old, _)| place < old) => oldest = Some((place, ip)),
            Some(_) => {}
        }
    }
    oldest.map_or(Choice::Exhausted, |(place, ip)| Choice::JustReleased(ip, place))
}

/// Every address of the set once but the gateways, beginning after `last`.
struct Candidates<'a> {
    ranges: &'a [Range],
    range: usize,
    ip: IpAddr,
    first: IpAddr,
    done: bool,
}

impl<'a> Candidates<'a> {
    fn new(set: &'a RangeSet, last: Option<IpAddr>) -> Self {
        let ranges = set.ranges();
        let position = last.and_then(|ip| Some((ranges.iter().position(|r| r.contains(ip))?, ip)));
        let (range, ip) = match position {
            Some((range, last)) => after(ranges, range, last),
            None => (0, ranges[0].start),
        };
        Self { ranges, range, ip, first: ip, done: false }
    }
}

fn after(ranges: &[Range], range: usize, ip: IpAddr) -> (usize, IpAddr) {
    if ip == ranges[range].end {
        let following = (range + 1) % ranges.len();
        (following, ranges[following].start)
    } else {
        (range, next(ip))
    }
}

impl Iterator for Candidates<'_> {
    type Item = IpAddr;
    fn next(&mut self) -> Option<IpAddr> {
        while !self.done {
            let (ip, gateway) = (self.ip, self.ranges[self.range].gateway);
            (self.range, self.ip) = after(self.ranges, self.range, ip);
            self.done = self.ip == self.first;
            if ip != gateway {
                return Some(ip);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::RawRange;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn set(ranges: &[(&str, &str)]) -> RangeSet {
        let raw = |(start, end): &(&str, &str)| RawRange {
            subnet: "10.1.2.0/24".into(),
            start: Some(ip(start)),
            end: Some(ip(end)),
            gateway: None,
        };
        RangeSet::new(&ranges.iter().map(raw).collect::<Vec<_>>()).expect("a set")
    }

    fn order(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        Candidates::new(set, last.map(ip)).map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn round_robin_wraps_around_and_skips_the_gateway() {
        let one = set(&[("10.1.2.1", "10.1.2.4")]);
        assert_eq!(order(&one, None), ["10.1.2.2", "10.1.2.3", "10.1.2.4"]);
        assert_eq!(order(&one, Some("10.1.2.2")), ["10.1.2.3", "10.1.2.4", "10.1.2.2"]);
        assert_eq!(order(&one, Some("10.1.2.4")), ["10.1.2.2", "10.1.2.3", "10.1.2.4"]);
        assert_eq!(order(&one, Some("10.9.9.9")), order(&one, None), "a stranger: begin anew");
        let two = set(&[("10.1.2.2", "10.1.2.3"), ("10.1.2.8", "10.1.2.9")]);
        assert_eq!(order(&two, Some("10.1.2.3")), ["10.1.2.8", "10.1.2.9", "10.1.2.2", "10.1.2.3"]);
        assert_eq!(
            order(&set(&[("10.1.2.1", "10.1.2.1")]), None),
            [] as [&str; 0],
            "nothing but the gateway"
        );
        assert_eq!(order(&set(&[("10.1.2.7", "10.1.2.7")]), Some("10.1.2.7")), ["10.1.2.7"]);
    }

    #[test]
    fn what_was_just_released_comes_last_and_the_longest_released_first() {
        let all = set(&[("10.1.2.2", "10.1.2.4")]);
        let releases = [ip("10.1.2.4"), ip("10.1.2.2")];
        let released = |ip: IpAddr| releases.iter().position(|r| *r == ip);
        assert_eq!(choose(&all, None, |_| false, released), Choice::Fresh(ip("10.1.2.3")));
        let taken = |x: IpAddr| x == ip("10.1.2.3");
        assert_eq!(choose(&all, None, taken, released), Choice::JustReleased(ip("10.1.2.4"), 0));
        assert_eq!(choose(&all, None, |_| true, released), Choice::Exhausted);
    }
}

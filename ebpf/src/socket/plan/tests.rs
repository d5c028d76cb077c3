use super::*;

/// The maps, without a kernel.
#[derive(Default)]
struct Maps {
    actual: Actual,
    /// Indexes keep their word when no frontend points to them any more.
    services: BTreeMap<u32, Service>,
    next_set: u32,
}

impl Maps {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::WriteSet { set, backends } => {
                assert!(
                    self.actual.sets.insert(set, (0..).zip(backends).collect()).is_none(),
                    "set {set} is new"
                );
            }
            Change::Store { index, service } => drop(self.services.insert(index, service)),
            Change::Point { frontend, index } => drop(self.actual.frontends.insert(frontend, index)),
            Change::AddNodeAddress(address) => assert!(self.actual.node_addresses.insert(address)),
            Change::RemoveNodeAddress(address) => assert!(self.actual.node_addresses.remove(&address)),
            Change::Unpoint(frontend) => assert!(self.actual.frontends.remove(&frontend).is_some()),
            Change::RemoveSet { set, backends } => assert_eq!(self.actual.sets.remove(&set), Some(backends)),
        }
        let used = self.actual.frontends.values();
        self.actual.services = used.map(|index| (*index, self.services[index])).collect();
    }

    /// Who a connection to the frontend may reach; `None`: it is no service.
    fn answer(&self, frontend: &Frontend) -> Option<BTreeSet<Endpoint>> {
        let index = self.actual.frontends.get(frontend)?;
        let choice = Choice::from(self.actual.services[index].choice);
        let backend = |slot| self.actual.sets[&choice.set][&slot];
        Some((0..choice.count).map(backend).collect())
    }

    fn pass(&mut self, desired: &Desired) -> Plan {
        let plan = plan(desired, &self.actual, &mut self.next_set).expect("fits");
        for change in &plan.changes {
            self.apply(change);
        }
        plan
    }
}

fn tcp(text: &str) -> At {
    At::tcp(text.parse().expect("an address and a port"))
}

fn entry(frontends: &[At], backends: &[&str]) -> Entry {
    let backends = backends.iter().map(|b| b.parse().expect("an address and a port")).collect();
    Entry { frontends: frontends.iter().copied().collect(), backends, affinity: None }
}

fn desired(entries: &[Entry]) -> Desired {
    Desired { entries: entries.to_vec(), node_addresses: BTreeSet::new() }
}

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

#[test]
fn a_second_pass_changes_nothing() {
    let mut maps = Maps::default();
    let mut wanted = desired(&[
        entry(&[tcp("10.96.0.1:80"), tcp("0.0.0.0:30080")], &[A, B]),
        entry(&[tcp("10.96.0.2:80")], &[]),
        entry(&[tcp("[fd00::1]:80")], &["[fd00:1::1]:80"]),
    ]);
    wanted.node_addresses =
        ["192.0.2.1", "2001:db8::1", "127.0.0.1", "::"].map(|a| a.parse().unwrap()).into();
    maps.pass(&wanted);
    assert_eq!(maps.actual.node_addresses.len(), 2, "loopback and unspecified are not among them");
    assert_eq!(maps.pass(&wanted), Plan::default());
}

#[test]
fn other_backends_are_another_set_and_the_same_service() {
    let mut maps = Maps::default();
    let at = tcp("10.96.0.1:80");
    maps.pass(&desired(&[entry(&[at], &[A])]));
    let plan = maps.pass(&desired(&[entry(&[at], &[A, B])]));
    assert!(
        matches!(
            plan.changes[..],
            [
                Change::WriteSet { set: 2, .. },
                Change::Store { index: 0, .. },
                Change::RemoveSet { set: 1, .. }
            ]
        ),
        "{:?}",
        plan.changes
    );
}

#[test]
fn affinity_alone_is_one_store() {
    let mut maps = Maps::default();
    let mut entry = entry(&[tcp("10.96.0.1:80")], &[A]);
    maps.pass(&desired(std::slice::from_ref(&entry)));
    entry.affinity = Some(Duration::from_hours(3));
    let plan = maps.pass(&desired(&[entry]));
    let [Change::Store { index: 0, service }] = plan.changes[..] else { panic!("{:?}", plan.changes) };
    assert_eq!(service.affinity_ns, 10_800_000_000_000);
}

#[test]
fn a_torn_set_is_written_anew() {
    let mut maps = Maps::default();
    let wanted = desired(&[entry(&[tcp("10.96.0.1:80")], &[A, B])]);
    maps.pass(&wanted);
    maps.actual.sets.get_mut(&1).expect("the set").remove(&0);
    maps.pass(&wanted);
    let answer = maps.answer(&tcp("10.96.0.1:80").into()).expect("a service");
    assert_eq!(answer.len(), 2);
    assert!(!maps.actual.sets.contains_key(&1));
}

#[test]
fn what_a_killed_pass_left_is_removed() {
    let mut maps = Maps::default();
    let orphan = BTreeMap::from([(0, Endpoint::from(A.parse::<SocketAddr>().unwrap()))]);
    maps.actual.sets.insert(9, orphan);
    maps.pass(&desired(&[]));
    assert_eq!(maps.actual, Actual::default());
}

#[test]
fn numbers_of_sets_go_on_and_skip_what_is_there() {
    let mut maps = Maps { next_set: u32::MAX, ..Maps::default() };
    maps.actual.sets.insert(1, BTreeMap::new());
    let entries: Vec<Entry> = (1..=3).map(|n| entry(&[tcp(&format!("10.96.0.{n}:80"))], &[A])).collect();
    let plan = maps.pass(&desired(&entries));
    let sets = plan.changes.iter().filter_map(|change| match change {
        Change::WriteSet { set, .. } => Some(*set),
        _ => None,
    });
    assert_eq!(sets.collect::<Vec<_>>(), [u32::MAX, 2, 3], "0 means no backends, 1 is taken");
}

#[test]
fn a_frontend_belongs_to_the_first_and_never_to_the_other_family() {
    let shared = tcp("10.96.0.1:80");
    let mixed = tcp("10.96.0.2:80");
    let mut maps = Maps::default();
    let plan = maps.pass(&desired(&[
        entry(&[shared], &[A]),
        entry(&[shared, tcp("10.96.0.3:80")], &[B]),
        entry(&[mixed], &["[fd00::1]:80"]),
    ]));
    let refused = [Refused { at: shared, why: Why::Taken }, Refused { at: mixed, why: Why::OtherFamily }];
    assert_eq!(plan.refused, refused);
    assert_eq!(maps.answer(&shared.into()).expect("a service").len(), 1);
    assert_eq!(maps.answer(&mixed.into()), None);
}

#[test]
fn more_than_fits_changes_nothing() {
    let addresses = (0..=MAX_NODE_ADDRESSES).map(|n| IpAddr::V4((0x0a00_0000 + n).into()));
    let wanted = Desired { entries: Vec::new(), node_addresses: addresses.collect() };
    let error = plan(&wanted, &Actual::default(), &mut 1).expect_err("too many");
    assert_eq!(error.to_string(), "1025 node addresses do not fit into the map of 1024");
}

/// A frontend answers by its old list or its new one after each single change; frontends split, merge and move at will.
#[test]
fn at_no_moment_does_a_frontend_answer_by_a_third_list() {
    let mut seed = 1_u32;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    let mut maps = Maps::default();
    let mut before = Desired::default();
    for round in 0..2_000 {
        let mut after = before.clone();
        for _ in 0..=random(3) {
            let frontend = tcp(&format!("10.96.0.{}:80", random(8)));
            for entry in &mut after.entries {
                entry.frontends.remove(&frontend);
            }
            let backends: Vec<String> = (0..random(4)).map(|_| format!("10.0.0.{}:80", random(5))).collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            match (random(4), after.entries.len() as u32) {
                (0, _) => {}
                (1, some) if some > 0 => {
                    after.entries[random(some) as usize].frontends.insert(frontend);
                }
                (2, some) if some > 0 => {
                    let other = entry(&[], &backends).backends;
                    after.entries[random(some) as usize].backends = other;
                }
                _ => after.entries.push(entry(&[frontend], &backends)),
            }
            after.entries.retain(|entry| !entry.frontends.is_empty());
        }
        let answers = |of: &Desired| -> BTreeMap<Frontend, BTreeSet<Endpoint>> {
            let pairs = of.entries.iter().flat_map(|entry| {
                let backends: BTreeSet<Endpoint> = entry.backends.iter().map(|b| (*b).into()).collect();
                entry.frontends.iter().map(move |at| (Frontend::from(*at), backends.clone()))
            });
            pairs.collect()
        };
        let (old, new) = (answers(&before), answers(&after));
        let plan = plan(&after, &maps.actual, &mut maps.next_set).expect("fits");
        for change in &plan.changes {
            maps.apply(change);
            for frontend in old.keys().chain(new.keys()) {
                let answer = maps.answer(frontend);
                let allowed = [old.get(frontend).cloned(), new.get(frontend).cloned()];
                // One that is removed goes last: until then it may answer as those it was with.
                let leaving = !new.contains_key(frontend);
                assert!(leaving || allowed.contains(&answer), "round {round}, after {change:?}: {answer:?}");
            }
        }
        for frontend in old.keys().chain(new.keys()) {
            assert_eq!(maps.answer(frontend), new.get(frontend).cloned(), "round {round}");
        }
        assert_eq!(super::plan(&after, &maps.actual, &mut maps.next_set), Ok(Plan::default()));
        before = after;
    }
}

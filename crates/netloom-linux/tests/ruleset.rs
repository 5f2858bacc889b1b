//! Our tables against the running kernel: built, printed by nft, damaged, mended, removed.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use common::{in_own_namespace, name, output};
use netloom_linux::{
    Applied, Change, Direction, Element, HostAddress, Kernel, KernelError, KernelStep, LinuxKernel,
    PortMap, TableState,
};
use netloom_types::{Family, MacAddr, Protocol};
use std::collections::BTreeSet;
use std::io::Write;

fn port(host: u16, target: &str) -> Element {
    Element::Port(PortMap {
        host: HostAddress::Any(Family::V4),
        protocol: Protocol::Tcp,
        port: host,
        target: target.parse().unwrap(),
    })
}

fn one_of_each() -> Vec<Element> {
    let b0 = || name("nl-0123456789ab");
    let mut all = vec![
        Element::Bridge(b0()),
        Element::Internal(b0()),
        Element::Foreign(name("docker0")),
        Element::Trusted(name("eth1")),
        Element::Guarded(name("nlv0")),
        Element::PortMac {
            port: name("nlv0"),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        },
        port(80, "10.1.0.2:8080"),
        Element::SourceNat {
            subnet: "10.1.0.0/16".parse().unwrap(),
            address: "192.0.2.9".parse().unwrap(),
        },
    ];
    for (subnet, address) in [("10.1.0.0/16", "10.1.0.2"), ("fd00:1::/64", "fd00:1::2")] {
        let subnet = subnet.parse().unwrap();
        let address = address.parse().unwrap();
        let protocol = Protocol::Sctp;
        let target = std::net::SocketAddr::new(address, 90);
        let host = HostAddress::One(address);
        all.extend([
            Element::Masquerade { subnet },
            Element::Direct { subnet },
            Element::Gateway {
                bridge: b0(),
                address,
            },
            Element::PortAddress {
                port: name("nlv0"),
                address,
            },
            Element::Open {
                bridge: b0(),
                address,
                protocol,
                port: 443,
            },
            Element::Port(PortMap {
                host,
                protocol,
                port: 9,
                target,
            }),
        ]);
    }
    all
}

#[test]
fn what_was_added_is_read_back_and_printed_by_nft() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        assert_eq!(kernel.netloom_table().unwrap().state, TableState::Absent);
        assert_eq!(
            kernel.apply(&KernelStep::EnsureTable).unwrap(),
            Applied::Changed
        );
        assert_eq!(
            kernel.apply(&KernelStep::EnsureTable).unwrap(),
            Applied::AlreadySo
        );
        let steps: Vec<_> = one_of_each()
            .into_iter()
            .map(KernelStep::AddElement)
            .collect();
        let applied = kernel.apply_all(&steps).unwrap();
        assert!(applied.iter().all(|a| *a == Applied::Changed));
        let applied = kernel.apply_all(&steps).unwrap();
        assert!(applied.iter().all(|a| *a == Applied::AlreadySo));
        let snapshot = kernel.netloom_table().unwrap();
        assert_eq!(snapshot.state, TableState::Complete);
        assert!(snapshot.strangers.is_empty(), "{:?}", snapshot.strangers);
        let want: BTreeSet<_> = one_of_each().into_iter().collect();
        assert_eq!(snapshot.elements, want);

        let printed = output("nft", &["list", "ruleset"]);
        if std::env::var_os("NETLOOM_PRINT_RULESET").is_some() {
            println!("{printed}");
        }
        for line in [
            "elements = { \"docker0\" }",
            "elements = { 10.1.0.0/16 }",
            "elements = { \"nlv0\" . 02:00:00:00:00:01 }",
            "elements = { tcp . 80 : 10.1.0.2 . 8080 }",
            "elements = { 10.1.0.0/16 : 192.0.2.9 }",
            "iifname @bridges jump from_container",
            "iifname . oifname @same accept",
            "oifname @nat4 ct status dnat accept",
        ] {
            assert!(printed.contains(line), "{line} is not in\n{printed}");
        }

        let undo: Vec<_> = steps.iter().filter_map(KernelStep::undo).collect();
        assert!(
            kernel
                .apply_all(&undo)
                .unwrap()
                .iter()
                .all(|a| *a == Applied::Changed)
        );
        assert!(
            kernel
                .apply_all(&undo)
                .unwrap()
                .iter()
                .all(|a| *a == Applied::AlreadySo)
        );
        assert!(kernel.netloom_table().unwrap().elements.is_empty());
        assert_eq!(
            kernel.apply(&KernelStep::RemoveTable).unwrap(),
            Applied::Changed
        );
        assert_eq!(
            kernel.apply(&KernelStep::RemoveTable).unwrap(),
            Applied::AlreadySo
        );
        assert_eq!(output("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn nft_reads_back_what_it_prints_but_for_the_one_rule_that_is_documented() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        let add = one_of_each().into_iter().map(KernelStep::AddElement);
        kernel.apply_all(&add.collect::<Vec<_>>()).unwrap();
        let printed = output("nft", &["list", "ruleset"]);
        let known = "advertisement of another address";
        let kept: Vec<_> = printed.lines().filter(|l| !l.contains(known)).collect();
        assert_eq!(kept.len() + 1, printed.lines().count());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(kept.join("\n").as_bytes()).unwrap();
        kernel.apply(&KernelStep::RemoveTable).unwrap();
        output("nft", &["-f", file.path().to_str().unwrap()]);
        let again = output("nft", &["list", "ruleset"]);
        assert_eq!(again.lines().collect::<Vec<_>>(), kept);
    });
}

#[test]
fn damage_is_named_and_mended_and_elements_stay() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let element = port(80, "10.1.0.2:80");
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        kernel
            .apply(&KernelStep::AddElement(element.clone()))
            .unwrap();
        // Faults and strays that each makes.
        for (damage, told) in [
            (
                &["flush", "chain", "inet", "netloom", "forward"][..],
                (true, false),
            ),
            (
                &["add", "rule", "inet", "netloom", "forward", "counter"],
                (false, true),
            ),
            (
                &["insert", "rule", "inet", "netloom", "input", "accept"],
                (false, true),
            ),
            (
                &["flush", "chain", "bridge", "netloom", "guard4"],
                (true, false),
            ),
            (&["flush", "table", "inet", "netloom"], (true, false)),
            (&["delete", "table", "bridge", "netloom"], (true, false)),
        ] {
            output("nft", damage);
            let state = kernel.netloom_table().unwrap().state;
            let TableState::Damaged { faults, strays } = state else {
                panic!("{damage:?} was not seen");
            };
            assert_eq!((!faults.is_empty(), !strays.is_empty()), told, "{damage:?}");
            assert_eq!(
                kernel.apply(&KernelStep::EnsureTable).unwrap(),
                Applied::Changed
            );
            let snapshot = kernel.netloom_table().unwrap();
            assert_eq!(snapshot.state, TableState::Complete, "{damage:?}");
            assert!(snapshot.elements.contains(&element), "{damage:?}");
        }
        output("nft", &["flush", "ruleset"]);
        assert_eq!(kernel.netloom_table().unwrap().state, TableState::Absent);
    });
}

#[test]
fn a_set_of_another_type_makes_the_tables_anew() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        output("nft", &["add", "table", "inet", "netloom"]);
        output(
            "nft",
            &[
                "add",
                "set",
                "inet",
                "netloom",
                "bridges",
                "{ type ipv4_addr; }",
            ],
        );
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        assert_eq!(kernel.netloom_table().unwrap().state, TableState::Complete);
    });
}

#[test]
fn strangers_in_our_sets_are_named() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        output(
            "nft",
            &[
                "add",
                "element",
                "inet",
                "netloom",
                "masq4",
                "{ 10.0.0.1-10.0.0.5 }",
            ],
        );
        output(
            "nft",
            &[
                "add",
                "element",
                "inet",
                "netloom",
                "bridges",
                "{ docker7 }",
            ],
        );
        let snapshot = kernel.netloom_table().unwrap();
        assert!(
            snapshot.elements.is_empty(),
            "half a bridge must be added again"
        );
        assert_eq!(snapshot.strangers.len(), 1, "{:?}", snapshot.strangers);
    });
}

#[test]
fn a_port_that_is_taken_is_a_conflict_and_nothing_of_its_transaction_stays() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        kernel
            .apply(&KernelStep::AddElement(port(80, "10.1.0.2:80")))
            .unwrap();
        let error = kernel
            .apply_all(&[
                KernelStep::AddElement(port(81, "10.1.0.3:80")),
                KernelStep::AddElement(port(80, "10.1.0.3:80")),
            ])
            .unwrap_err();
        assert_eq!(error.index, 1);
        assert!(
            matches!(error.source, KernelError::Conflict { .. }),
            "{}",
            error.source
        );
        let elements = kernel.netloom_table().unwrap().elements;
        assert_eq!(elements, BTreeSet::from([port(80, "10.1.0.2:80")]));
    });
}

#[test]
fn a_late_deletion_spares_the_ports_new_owner() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        let new = port(80, "10.1.0.3:80");
        kernel.apply(&KernelStep::AddElement(new.clone())).unwrap();
        let late = KernelStep::DeleteElement(port(80, "10.1.0.2:80"));
        assert_eq!(kernel.apply(&late).unwrap(), Applied::AlreadySo);
        assert!(kernel.netloom_table().unwrap().elements.contains(&new));
        let steps = [
            KernelStep::DeleteElement(new.clone()),
            KernelStep::AddElement(port(80, "10.1.0.2:80")),
            late,
        ];
        let applied = kernel.apply_all(&steps).unwrap();
        assert_eq!(applied, [Applied::Changed; 3]);
        assert!(kernel.netloom_table().unwrap().elements.is_empty());
    });
}

#[test]
fn ranges_that_overlap_are_a_conflict() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        let masq = |text: &str| {
            KernelStep::AddElement(Element::Masquerade {
                subnet: text.parse().unwrap(),
            })
        };
        assert_eq!(
            kernel.apply(&masq("10.1.0.0/16")).unwrap(),
            Applied::Changed
        );
        assert_eq!(
            kernel.apply(&masq("10.2.0.0/16")).unwrap(),
            Applied::Changed
        );
        assert_eq!(
            kernel.apply(&masq("10.1.0.0/16")).unwrap(),
            Applied::AlreadySo
        );
        for overlap in ["10.1.0.0/17", "10.1.128.0/17", "10.0.0.0/8"] {
            let result = kernel.apply(&masq(overlap));
            assert!(
                matches!(result, Err(KernelError::Conflict { .. })),
                "{overlap}: {result:?}"
            );
        }
        assert_eq!(kernel.netloom_table().unwrap().elements.len(), 2);
    });
}

#[test]
fn elements_without_a_table_say_what_is_missing() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let error = kernel
            .apply(&KernelStep::AddElement(port(80, "10.1.0.2:80")))
            .unwrap_err();
        assert!(error.is_not_found(), "{error}");
        let delete = KernelStep::DeleteElement(port(80, "10.1.0.2:80"));
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::AlreadySo);
    });
}

#[test]
fn five_hundred_ports_go_in_and_out_together() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        let steps: Vec<_> = (1..=500)
            .map(|at| KernelStep::AddElement(port(at, "10.1.0.2:80")))
            .collect();
        assert!(
            kernel
                .apply_all(&steps)
                .unwrap()
                .iter()
                .all(|a| *a == Applied::Changed)
        );
        assert_eq!(kernel.netloom_table().unwrap().elements.len(), 500);
        // All of them refused at once: the acknowledgements must not overrun the socket.
        assert!(
            kernel
                .apply_all(&steps)
                .unwrap()
                .iter()
                .all(|a| *a == Applied::AlreadySo)
        );
        let undo: Vec<_> = steps.iter().filter_map(KernelStep::undo).collect();
        assert!(
            kernel
                .apply_all(&undo)
                .unwrap()
                .iter()
                .all(|a| *a == Applied::Changed)
        );
        assert!(kernel.netloom_table().unwrap().elements.is_empty());
    });
}

#[test]
fn accepts_stand_in_docker_user_behind_the_operators_rules_and_before_return() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let add = KernelStep::AddForwardAccept {
            bridge: name("nl-0123456789ab"),
        };
        assert_eq!(
            kernel.apply(&add).unwrap(),
            Applied::AlreadySo,
            "no chain, nothing to do"
        );
        for iptables in ["iptables", "ip6tables"] {
            output(iptables, &["-N", "DOCKER-USER"]);
            output(iptables, &["-A", "DOCKER-USER", "-i", "eth0", "-j", "DROP"]);
            output(iptables, &["-A", "DOCKER-USER", "-j", "RETURN"]);
        }
        assert_eq!(kernel.apply(&add).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&add).unwrap(), Applied::AlreadySo);
        let found: Vec<_> = kernel.forward_accepts().unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(
            found
                .iter()
                .filter(|a| a.direction == Direction::In)
                .count(),
            2
        );
        for iptables in ["iptables", "ip6tables"] {
            let printed = output(iptables, &["-S", "DOCKER-USER"]);
            let lines: Vec<_> = printed.lines().collect();
            assert_eq!(
                lines,
                [
                    "-N DOCKER-USER",
                    "-A DOCKER-USER -i eth0 -j DROP",
                    "-A DOCKER-USER -i nl-0123456789ab -m comment --comment netloom -j ACCEPT",
                    "-A DOCKER-USER -o nl-0123456789ab -m comment --comment netloom -j ACCEPT",
                    "-A DOCKER-USER -j RETURN",
                ]
            );
        }
        // A rule that was taken away comes back alone.
        output("iptables", &["-D", "DOCKER-USER", "2"]);
        assert_eq!(kernel.forward_accepts().unwrap().len(), 3);
        assert_eq!(kernel.apply(&add).unwrap(), Applied::Changed);
        assert_eq!(kernel.forward_accepts().unwrap().len(), 4);
        let delete = add.undo().unwrap();
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::AlreadySo);
        let printed = output("iptables", &["-S", "DOCKER-USER"]);
        assert_eq!(printed.lines().count(), 3, "{printed}");
    });
}

#[test]
fn changes_by_others_are_noticed_and_our_own_are_not() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let mut monitor = kernel.monitor().unwrap();
        // Notifications are queued when the change returns, so a poll without waiting sees them;
        // a notification takes one call, and 300 calls read more than any change here makes.
        let mut noticed = || {
            let read = |_| monitor.wait(std::time::Duration::ZERO).unwrap();
            (0..300).filter_map(read).collect::<Vec<_>>()
        };
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        kernel
            .apply(&KernelStep::AddElement(port(80, "10.1.0.2:80")))
            .unwrap();
        assert!(noticed().is_empty());
        output("nft", &["add", "table", "ip", "other"]);
        assert!(noticed().is_empty(), "tables of others are not our concern");
        output("nft", &["flush", "ruleset"]);
        assert!(noticed().contains(&Change::Ruleset));
        output("iptables", &["-N", "DOCKER-USER"]);
        assert!(noticed().contains(&Change::Ruleset));
    });
}

/// Prints what steps cost on this machine; asserts nothing about time.
#[test]
fn costs_are_shown() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel.apply(&KernelStep::EnsureTable).unwrap();
        let cost = |what: &str, rounds: u32, work: &mut dyn FnMut(u32)| {
            #[allow(
                clippy::disallowed_methods,
                reason = "a measurement that is only shown"
            )]
            let begin = std::time::Instant::now();
            (0..rounds).for_each(&mut *work);
            let each = begin.elapsed() / rounds;
            println!("{what}: {each:?}");
        };
        let number = |at: u32| u16::try_from(at + 1).unwrap();
        cost("publish one port", 1000, &mut |at| {
            let step = KernelStep::AddElement(port(number(at), "10.1.0.2:80"));
            kernel.apply(&step).unwrap();
        });
        cost("withdraw one port, 1000 there", 1000, &mut |at| {
            let step = KernelStep::DeleteElement(port(number(at), "10.1.0.2:80"));
            kernel.apply(&step).unwrap();
        });
        cost("check the tables", 50, &mut |_| {
            kernel.apply(&KernelStep::EnsureTable).unwrap();
        });
        cost("read the tables", 50, &mut |_| {
            kernel.netloom_table().unwrap();
        });
        cost("list links", 50, &mut |_| {
            kernel.links().unwrap();
        });
    });
}

//! Links, addresses, routes and settings against the running kernel.

mod common;

use common::{Namespace, addr, alias, attach, in_own_namespace, ip, make_net, name, output};
use netloom_linux::{
    AdminState, Applied, BridgeSpec, Change, Kernel, KernelError, KernelStep, LinuxKernel, NextHop,
    Place, PortFlags, RouteSpec, Switch, SysctlKey, VethEnd, VethSpec,
};
use netloom_types::MacAddr;
use std::path::Path;

fn bridge(text: &str) -> BridgeSpec {
    BridgeSpec {
        name: name(text),
        mac: Some(MacAddr::new([2, 0, 0, 0, 0, 9])),
        mtu: Some(1400),
        alias: alias("netloom:n1"),
    }
}

fn veth(host: &str, peer: &str, master: Option<&str>) -> VethSpec {
    let end = |text: &str| VethEnd {
        name: name(text),
        mac: None,
    };
    VethSpec {
        host: end(host),
        peer: end(peer),
        place: Place::Host,
        master: master.map(name),
        flags: PortFlags::default(),
        mtu: Some(1400),
        alias: alias("netloom:e1"),
    }
}

#[test]
fn a_bridge_is_made_as_asked_and_only_once() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let make = KernelStep::CreateBridge(bridge("b0"));
        assert_eq!(kernel.apply(&make).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&make).unwrap(), Applied::AlreadySo);
        let link = kernel.link(&name("b0")).unwrap().unwrap();
        assert_eq!(link.kind.as_deref(), Some("bridge"));
        assert_eq!(link.alias.as_deref(), Some("netloom:n1"));
        assert_eq!(link.mtu, 1400);
        assert_eq!(link.mac, Some(MacAddr::new([2, 0, 0, 0, 0, 9])));
        assert_eq!(link.state, AdminState::Up);
        let details = output("ip", &["-d", "link", "show", "b0"]);
        assert!(details.contains("mcast_snooping 0"), "{details}");
        assert!(details.contains("stp_state 0"), "{details}");
        let delete = KernelStep::DeleteLink { link: name("b0") };
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::AlreadySo);
    });
}

#[test]
fn a_bridge_of_someone_else_is_left_alone() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        output("ip", &["link", "add", "b0", "type", "bridge"]);
        let error = kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap_err();
        assert!(matches!(error, KernelError::Conflict { .. }), "{error}");
        assert!(kernel.link(&name("b0")).unwrap().is_some());
    });
}

#[test]
fn a_pair_is_born_up_in_its_bridge_with_flags_and_tag() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap();
        let mut spec = veth("h0", "c0", Some("b0"));
        spec.flags.isolated = Some(Switch::On);
        spec.flags.hairpin = Some(Switch::On);
        let make = KernelStep::CreateVeth(spec);
        assert_eq!(kernel.apply(&make).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&make).unwrap(), Applied::AlreadySo);
        let host = kernel.link(&name("h0")).unwrap().unwrap();
        let master = kernel.link(&name("b0")).unwrap().unwrap().index;
        assert_eq!(host.master, Some(master));
        assert_eq!(host.state, AdminState::Up);
        assert_eq!(host.alias.as_deref(), Some("netloom:e1"));
        assert_eq!(host.mtu, 1400);
        let details = output("ip", &["-d", "link", "show", "h0"]);
        assert!(details.contains("isolated on"), "{details}");
        assert!(details.contains("hairpin on"), "{details}");
        assert_eq!(
            kernel.link(&name("c0")).unwrap().unwrap().peer,
            Some(host.index)
        );
    });
}

#[test]
fn steps_on_links_change_once_and_say_so_twice() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap();
        kernel
            .apply(&KernelStep::CreateVeth(veth("h0", "c0", None)))
            .unwrap();
        let link = || name("h0");
        for step in [
            KernelStep::SetMaster {
                link: link(),
                master: name("b0"),
            },
            KernelStep::SetMtu {
                link: link(),
                mtu: 1300,
            },
            KernelStep::SetAlias {
                link: link(),
                alias: alias("netloom:other"),
            },
            KernelStep::SetDown { link: link() },
            KernelStep::SetUp { link: link() },
            KernelStep::AddAddress {
                link: name("b0"),
                address: addr("10.77.0.1/24"),
            },
            KernelStep::AddAddress {
                link: name("b0"),
                address: addr("fd77::1/64"),
            },
            KernelStep::DeleteAddress {
                link: name("b0"),
                address: addr("fd77::1/64"),
            },
            KernelStep::ClearMaster { link: link() },
            KernelStep::Rename {
                link: link(),
                to: name("h1"),
            },
            KernelStep::SetSysctl {
                key: SysctlKey::Ipv4Forward,
                value: 1,
            },
        ] {
            assert_eq!(kernel.apply(&step).unwrap(), Applied::Changed, "{step}");
            assert_eq!(kernel.apply(&step).unwrap(), Applied::AlreadySo, "{step}");
        }
        assert_eq!(
            kernel.add_altname(&name("h1"), "netloom-e1").unwrap(),
            Applied::Changed
        );
        assert_eq!(
            kernel.add_altname(&name("h1"), "netloom-e1").unwrap(),
            Applied::AlreadySo
        );
        assert_eq!(
            kernel.link(&name("h1")).unwrap().unwrap().altnames,
            ["netloom-e1"]
        );
        let addresses = kernel.addresses().unwrap();
        assert!(addresses.iter().any(|a| a.address == addr("10.77.0.1/24")));
    });
}

#[test]
fn routes_are_added_listed_and_deleted() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap();
        let on = |address| KernelStep::AddAddress {
            link: name("b0"),
            address,
        };
        kernel.apply(&on(addr("10.77.0.1/24"))).unwrap();
        kernel.apply(&on(addr("fd77::1/64"))).unwrap();
        let route = |to: &str, gateway| RouteSpec {
            destination: to.parse().unwrap(),
            gateway,
            link: name("b0"),
            source: None,
            metric: 0,
        };
        for spec in [
            route("10.78.0.0/16", Some(NextHop::Via(ip("10.77.0.9")))),
            route("10.79.0.0/16", Some(NextHop::Onlink(ip("192.0.2.1")))),
            route("10.80.0.5/32", None),
            route("0.0.0.0/0", Some(NextHop::Via(ip("10.77.0.9")))),
            route("fd78::/64", Some(NextHop::Via(ip("fd77::9")))),
        ] {
            let add = KernelStep::AddRoute(spec.clone());
            assert_eq!(kernel.apply(&add).unwrap(), Applied::Changed, "{add}");
            assert_eq!(kernel.apply(&add).unwrap(), Applied::AlreadySo, "{add}");
            let have = kernel.routes().unwrap();
            let found = have
                .iter()
                .find(|r| r.destination == spec.destination)
                .unwrap();
            assert_eq!(found.gateway, spec.gateway.map(NextHop::address));
            let delete = add.undo().unwrap();
            assert_eq!(kernel.apply(&delete).unwrap(), Applied::Changed);
            assert_eq!(kernel.apply(&delete).unwrap(), Applied::AlreadySo);
        }
        let subnets: Vec<_> = kernel
            .routes()
            .unwrap()
            .iter()
            .map(|r| r.destination)
            .collect();
        assert!(subnets.contains(&"10.77.0.0/24".parse().unwrap()));
        assert!(subnets.contains(&"fd77::/64".parse().unwrap()));
    });
}

#[test]
fn the_1024th_port_of_a_bridge_is_refused_by_name() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap();
        for at in 0..1023 {
            let spec = veth(&format!("h{at}"), &format!("c{at}"), Some("b0"));
            kernel.apply(&KernelStep::CreateVeth(spec)).unwrap();
        }
        let error = kernel
            .apply(&KernelStep::CreateVeth(veth("last", "lastc", Some("b0"))))
            .unwrap_err();
        assert!(matches!(&error, KernelError::BridgeFull { bridge } if *bridge == name("b0")));
        assert!(kernel.link(&name("last")).unwrap().is_none());
        assert!(kernel.links().unwrap().len() > 2046);
        let links = (0..1023).map(|at| name(&format!("h{at}"))).collect();
        let delete = KernelStep::DeleteLinks { links };
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&delete).unwrap(), Applied::AlreadySo);
        assert!(
            kernel
                .links()
                .unwrap()
                .iter()
                .all(|l| !l.name.starts_with('h'))
        );
    });
}

#[test]
fn a_path_that_is_no_namespace_of_a_container_is_refused() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let move_to = |path: &str| {
            kernel.apply(&KernelStep::MoveLink {
                link: name("lo"),
                namespace: path.into(),
            })
        };
        let error = move_to("/proc/thread-self/ns/net").unwrap_err();
        assert!(
            matches!(error, KernelError::HostNamespace { .. }),
            "{error}"
        );
        let error = move_to("/proc/self/ns/mnt").unwrap_err();
        assert!(
            matches!(error, KernelError::NotANamespace { .. }),
            "{error}"
        );
        let error = move_to("/proc/self/status").unwrap_err();
        assert!(
            matches!(error, KernelError::NotANamespace { .. }),
            "{error}"
        );
        let error = move_to("/nowhere/at/all").unwrap_err();
        assert!(error.is_not_found(), "{error}");
    });
}

#[test]
fn a_namespace_mounted_on_a_file_is_one() {
    in_own_namespace(|| {
        // Docker and `ip netns` mount a container's namespace on a file, whose link does not tell
        // what it is.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        output("mount", &["--make-rprivate", "/"]);
        let dir = tempfile::tempdir().unwrap();
        let container = Namespace::new();
        let mounted = |what: &Path, file: &str| {
            let file = dir.path().join(file);
            std::fs::write(&file, "").unwrap();
            let words = [what.to_str().unwrap(), file.to_str().unwrap()];
            output("mount", &["--bind", words[0], words[1]]);
            file
        };
        let net = mounted(&container.path, "net");
        let other = mounted(Path::new("/proc/self/ns/uts"), "uts");
        let kernel = LinuxKernel::open().unwrap();
        kernel
            .apply(&KernelStep::CreateVeth(veth("h0", "p0", None)))
            .unwrap();
        let move_to = |namespace: &Path| {
            let (link, namespace) = (name("p0"), namespace.to_owned());
            kernel.apply(&KernelStep::MoveLink { link, namespace })
        };
        let error = move_to(&other).unwrap_err();
        assert!(
            matches!(error, KernelError::NotANamespace { .. }),
            "{error}"
        );
        move_to(&net).unwrap();
        assert!(kernel.link(&name("p0")).unwrap().is_none());
        output("umount", &[net.to_str().unwrap()]);
        output("umount", &[other.to_str().unwrap()]);
    });
}

#[test]
fn neighbours_are_listed_and_told() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let net = make_net(&kernel, "b0", "10.77.0.1/24");
        let one = attach(&kernel, &net, "h0", "10.77.0.2/24");
        let two = attach(&kernel, &net, "h1", "10.77.0.3/24");
        let to = two.namespace.udp("10.77.0.3:5000");
        let from = one.namespace.udp("10.77.0.2:5000");
        assert!(common::datagram(&from, &to, "10.77.0.3:5000").is_some());
        let moved = MacAddr::new([2, 9, 9, 9, 9, 9]);
        for (mac, address) in [(moved, ip("10.77.0.3")), (moved, ip("fd77::3"))] {
            let tell = KernelStep::Announce {
                link: net.bridge.clone(),
                mac,
                address,
            };
            kernel.apply(&tell).unwrap();
        }
        // The first container's entry follows the announcement.
        let heard = one.namespace.run(|| {
            let inside = LinuxKernel::open().unwrap();
            let all = inside.neighbours().unwrap();
            all.iter()
                .find(|n| n.address == ip("10.77.0.3"))
                .and_then(|n| n.mac)
        });
        assert_eq!(heard, Some(moved));
    });
}

#[test]
fn a_link_of_ours_that_someone_removes_is_noticed() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let mut monitor = kernel.monitor().unwrap();
        kernel
            .apply(&KernelStep::CreateBridge(bridge("b0")))
            .unwrap();
        output("ip", &["link", "add", "b1", "type", "bridge"]);
        let read = |_| monitor.wait(std::time::Duration::ZERO).unwrap();
        // Making a bridge passes through "down", which is told; draining it here.
        let _ = (0..100).filter_map(read).count();
        output("ip", &["link", "del", "b1"]);
        let read = |_| monitor.wait(std::time::Duration::ZERO).unwrap();
        assert_eq!(
            (0..100).filter_map(read).count(),
            0,
            "links of others are not our concern"
        );
        output("ip", &["link", "del", "b0"]);
        let read = |_| monitor.wait(std::time::Duration::ZERO).unwrap();
        assert!(
            (0..100)
                .filter_map(read)
                .any(|change| change == Change::Links)
        );
    });
}

#[test]
fn what_a_killed_process_left_half_made_is_completed() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        // The group that links of ours are born in; the alias would have come next.
        let group = 0x6e6c_0001_u32.to_string();
        output(
            "ip",
            &["link", "add", "b0", "group", &group, "type", "bridge"],
        );
        let make = KernelStep::CreateBridge(bridge("b0"));
        assert_eq!(kernel.apply(&make).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&make).unwrap(), Applied::AlreadySo);
        output(
            "ip",
            &[
                "link", "add", "h0", "group", &group, "type", "veth", "peer", "name", "c0",
            ],
        );
        let make = KernelStep::CreateVeth(veth("h0", "c0", Some("b0")));
        assert_eq!(kernel.apply(&make).unwrap(), Applied::Changed);
        assert_eq!(kernel.apply(&make).unwrap(), Applied::AlreadySo);
        let host = kernel.link(&name("h0")).unwrap().unwrap();
        assert_eq!(host.alias.as_deref(), Some("netloom:e1"));
        assert_eq!(host.state, AdminState::Up);
    });
}

#[test]
fn a_failed_plan_leaves_nothing_behind() {
    in_own_namespace(|| {
        let kernel = LinuxKernel::open().unwrap();
        let before = kernel.links().unwrap();
        let error = kernel
            .apply_all(&[
                KernelStep::CreateBridge(bridge("b0")),
                KernelStep::CreateVeth(veth("h0", "c0", Some("b0"))),
                KernelStep::AddAddress {
                    link: name("b0"),
                    address: addr("10.77.0.1/24"),
                },
                KernelStep::SetMaster {
                    link: name("h0"),
                    master: name("nowhere"),
                },
            ])
            .unwrap_err();
        assert_eq!(error.index, 3);
        assert!(error.undo_failures.is_empty(), "{error}");
        assert_eq!(kernel.links().unwrap(), before);
    });
}

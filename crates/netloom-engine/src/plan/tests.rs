use super::*;
use netloom_core::{Addresses, Reach};
use netloom_types::{HostPorts, Protocol, SandboxId};
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(99);

fn network(state: NetworkState) -> NetworkView {
    NetworkView {
        spec: NetworkSpec {
            id: "n".parse().unwrap(),
            driver: "fake".into(),
            subnets: vec![],
            reach: Reach::External,
            options: BTreeMap::new(),
        },
        state,
        created: Timestamp(1),
    }
}

fn sandbox(name: &str) -> SandboxRef {
    SandboxRef {
        id: SandboxId::new(name).unwrap(),
        netns: format!("/run/netns/{name}").into(),
    }
}

fn endpoint(state: EndpointState) -> EndpointView {
    EndpointView {
        endpoint: DesiredEndpoint {
            spec: EndpointSpec {
                id: "e".parse().unwrap(),
                network: "n".parse().unwrap(),
                addresses: Addresses::default(),
                mac: None,
                ports: vec![PortBinding {
                    protocol: Protocol::Tcp,
                    container_port: 80,
                    host_ip: None,
                    host_ports: HostPorts::Ephemeral,
                }],
                exposed: vec![],
                options: BTreeMap::new(),
            },
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            sandbox: (state != EndpointState::Created).then(|| sandbox("s")),
            ports: vec![],
        },
        state,
        created: Timestamp(2),
        ports_due: vec![],
        ports_revoked: vec![],
    }
}

fn situation(state: EndpointState) -> Situation {
    Situation {
        network: Some(network(NetworkState::Ready)),
        endpoint: Some(endpoint(state)),
        members: vec![],
    }
}

const STATES: [EndpointState; 5] = [
    EndpointState::Created,
    EndpointState::Joining,
    EndpointState::Joined,
    EndpointState::Leaving,
    EndpointState::Deleting,
];

/// The states that a plan writes or notes, in order.
fn states(plan: &Plan) -> Vec<EndpointState> {
    plan.steps
        .iter()
        .filter_map(|planned| match &planned.step {
            Step::PutEndpoint(view) | Step::NoteEndpoint(view) => Some(view.state),
            _ => None,
        })
        .collect()
}

#[test]
fn a_join_is_planned_from_created_and_joining_alone() {
    let id: EndpointId = "e".parse().unwrap();
    for state in STATES {
        let plan = plan(
            &situation(state),
            &Event::Join(id.clone(), sandbox("s")),
            NOW,
        );
        match state {
            EndpointState::Created | EndpointState::Joining => assert_eq!(
                states(&plan.unwrap()),
                [EndpointState::Joining, EndpointState::Joined]
            ),
            EndpointState::Joined => {
                let steps = plan.unwrap().steps;
                assert!(matches!(
                    steps.as_slice(),
                    [Planned {
                        step: Step::Attach(..),
                        undo: None
                    }]
                ));
            }
            EndpointState::Leaving | EndpointState::Deleting => {
                assert!(matches!(plan, Err(ControlError::State(_))));
            }
        }
    }
}

#[test]
fn a_joined_endpoint_does_not_move_to_another_sandbox() {
    let id: EndpointId = "e".parse().unwrap();
    for state in [EndpointState::Joining, EndpointState::Joined] {
        let event = Event::Join(id.clone(), sandbox("other"));
        assert!(plan(&situation(state), &event, NOW).is_err());
    }
}

#[test]
fn a_leave_is_planned_wherever_there_may_be_a_link() {
    for state in STATES {
        let plan = plan(&situation(state), &Event::Leave("e".parse().unwrap()), NOW);
        match state {
            EndpointState::Created => assert_eq!(plan.unwrap().steps, []),
            EndpointState::Deleting => assert!(plan.is_err()),
            EndpointState::Joining | EndpointState::Joined | EndpointState::Leaving => {
                assert_eq!(
                    states(&plan.unwrap()),
                    [EndpointState::Leaving, EndpointState::Created]
                );
            }
        }
    }
}

#[test]
fn every_state_can_be_deleted_and_the_record_goes_last() {
    for state in STATES {
        let event = Event::DeleteEndpoint("e".parse().unwrap());
        let plan = plan(&situation(state), &event, NOW).unwrap();
        assert!(matches!(
            plan.steps.last().unwrap().step,
            Step::DropEndpoint(_)
        ));
        let detaches = plan
            .steps
            .iter()
            .any(|p| matches!(p.step, Step::Detach(..)));
        assert_eq!(detaches, state != EndpointState::Created, "{state:?}");
        assert_eq!(plan.on_failure, OnFailure::GoOn);
    }
}

#[test]
fn only_an_endpoint_that_never_joined_is_forgotten() {
    for state in STATES {
        let event = Event::Forget("e".parse().unwrap());
        let plan = plan(&situation(state), &event, NOW).unwrap();
        let goes = state == EndpointState::Created;
        assert_eq!(plan.steps.len(), usize::from(goes), "{state:?}");
    }
}

#[test]
fn ports_are_published_for_joined_endpoints_alone() {
    for state in STATES {
        let event = Event::Publish("e".parse().unwrap(), vec![]);
        let plan = plan(&situation(state), &event, NOW);
        let joined = matches!(state, EndpointState::Joining | EndpointState::Joined);
        assert_eq!(plan.is_ok(), joined, "{state:?}");
    }
}

#[test]
fn published_ports_are_not_published_twice() {
    let mut situation = situation(EndpointState::Joined);
    let port = netloom_core::PublishedPort {
        protocol: Protocol::Tcp,
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port: 1,
        container_ip: "10.0.0.2".parse().unwrap(),
        container_port: 80,
    };
    situation.endpoint.as_mut().unwrap().endpoint.ports = vec![port];
    let event = Event::Publish("e".parse().unwrap(), vec![]);
    let plan = plan(&situation, &event, NOW).unwrap();
    assert_eq!((plan.steps, plan.reply), (vec![], Reply::Ports(vec![port])));
}

#[test]
fn a_network_is_created_from_every_state_but_deleting() {
    let spec = network(NetworkState::Ready).spec;
    let plan_from = |known: Option<NetworkView>| {
        let situation = Situation {
            network: known,
            ..Situation::default()
        };
        plan(&situation, &Event::CreateNetwork(spec.clone()), NOW)
    };
    assert_eq!(plan_from(None).unwrap().steps.len(), 3);
    let creating = plan_from(Some(network(NetworkState::Creating))).unwrap();
    assert_eq!(creating.steps.len(), 3);
    let ready = plan_from(Some(network(NetworkState::Ready))).unwrap();
    assert_eq!(ready.steps.len(), 0);
    assert!(matches!(
        plan_from(Some(network(NetworkState::Deleting))),
        Err(ControlError::Conflict(_))
    ));
    let mut other = network(NetworkState::Ready);
    other.spec.reach = Reach::Internal;
    assert!(matches!(
        plan_from(Some(other)),
        Err(ControlError::Conflict(_))
    ));
}

#[test]
fn a_network_with_a_living_member_stays_and_one_with_remains_goes() {
    for state in STATES {
        for gone in [SandboxState::Present, SandboxState::Gone] {
            let situation = Situation {
                network: Some(network(NetworkState::Ready)),
                endpoint: None,
                members: vec![(endpoint(state), gone)],
            };
            let event = Event::DeleteNetwork("n".parse().unwrap());
            let plan = plan(&situation, &event, NOW);
            let joined = matches!(state, EndpointState::Joining | EndpointState::Joined);
            let stays = joined && gone == SandboxState::Present;
            assert_eq!(plan.is_err(), stays, "{state:?} {gone:?}");
            if let Ok(plan) = plan {
                let drops = |p: &Planned| matches!(p.step, Step::DropEndpoint(_));
                assert!(plan.steps.iter().any(drops));
            }
        }
    }
}

#[test]
fn what_is_unknown_is_gone_already_or_named_as_unknown() {
    let nothing = Situation::default();
    let e: EndpointId = "e".parse().unwrap();
    for event in [
        Event::DeleteNetwork("n".parse().unwrap()),
        Event::DeleteEndpoint(e.clone()),
        Event::Leave(e.clone()),
        Event::Revoke(e.clone()),
    ] {
        assert_eq!(plan(&nothing, &event, NOW).unwrap().steps, []);
    }
    let spec = endpoint(EndpointState::Created).endpoint.spec;
    for event in [
        Event::CreateEndpoint(spec, MacAddr::new([2; 6])),
        Event::Join(e.clone(), sandbox("s")),
        Event::Publish(e, vec![]),
    ] {
        assert!(matches!(
            plan(&nothing, &event, NOW),
            Err(ControlError::NotFound(_))
        ));
    }
}

#[test]
fn a_repeated_endpoint_keeps_its_first_link_address() {
    let spec = endpoint(EndpointState::Joined).endpoint.spec;
    let event = Event::CreateEndpoint(spec.clone(), MacAddr::new([2, 9, 9, 9, 9, 9]));
    let plan_ = plan(&situation(EndpointState::Joined), &event, NOW).unwrap();
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    assert_eq!(plan_.reply, Reply::Granted(EndpointGrant { mac }));
    let mut other = spec;
    other.mac = Some(mac);
    let event = Event::CreateEndpoint(other, mac);
    assert!(plan(&situation(EndpointState::Joined), &event, NOW).is_err());
}

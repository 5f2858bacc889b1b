use super::*;
use netloom_core::{
    Addresses, DesiredEndpoint, EndpointSpec, EndpointState, NetworkSpec, NetworkState,
    PublishedPort, Reach, SandboxRef, SubnetSpec, Timestamp,
};
use netloom_types::{HostPorts, PortBinding, Protocol};

fn operation() -> OperationId {
    OperationId::new("0af1").unwrap()
}

fn boot() -> BootId {
    BootId::new("b-1").unwrap()
}

fn network() -> NetworkView {
    NetworkView {
        spec: NetworkSpec {
            id: "n1".parse().unwrap(),
            driver: "bridge".into(),
            subnets: vec![SubnetSpec {
                subnet: "10.9.0.0/16".parse().unwrap(),
                gateway: Some("10.9.0.1".parse().unwrap()),
                auxiliary: [("a".to_owned(), "10.9.0.9".parse().unwrap())].into(),
            }],
            reach: Reach::Internal,
            options: [("netloom.mtu".to_owned(), "1400".to_owned())].into(),
        },
        state: NetworkState::Ready,
        created: Timestamp(7),
    }
}

fn endpoint() -> EndpointView {
    EndpointView {
        endpoint: DesiredEndpoint {
            spec: EndpointSpec {
                id: "e1".parse().unwrap(),
                network: "n1".parse().unwrap(),
                addresses: Addresses {
                    ipv4: Some("10.9.0.2/16".parse().unwrap()),
                    ipv6: Some("fd00::2/64".parse().unwrap()),
                },
                mac: Some("02:42:0a:09:00:02".parse().unwrap()),
                ports: vec![
                    PortBinding {
                        protocol: Protocol::Tcp,
                        container_port: 80,
                        host_ip: None,
                        host_ports: HostPorts::range(8080, 8090).unwrap(),
                    },
                    PortBinding {
                        protocol: Protocol::Udp,
                        container_port: 53,
                        host_ip: Some("127.0.0.1".parse().unwrap()),
                        host_ports: HostPorts::Ephemeral,
                    },
                ],
                exposed: vec![(Protocol::Sctp, 9)],
                options: [("k".to_owned(), "v".to_owned())].into(),
            },
            mac: "02:42:0a:09:00:02".parse().unwrap(),
            sandbox: Some(SandboxRef {
                id: "s1".parse().unwrap(),
                netns: "/run/netns/x".into(),
            }),
            ports: vec![PublishedPort {
                protocol: Protocol::Tcp,
                host_ip: "0.0.0.0".parse().unwrap(),
                host_port: 8081,
                container_ip: "10.9.0.2".parse().unwrap(),
                container_port: 80,
            }],
        },
        state: EndpointState::Joined,
        created: Timestamp(8),
        ports_due: vec![],
        ports_revoked: vec![],
    }
}

#[test]
fn records_round_trip() {
    let bytes = encode_network(&network(), &operation()).unwrap();
    let stored = decode_network(&bytes).unwrap();
    assert_eq!(stored.view, network());
    assert_eq!(stored.operation, operation());

    let bytes = encode_endpoint(&endpoint(), &operation(), &boot()).unwrap();
    let stored = decode_endpoint(&bytes).unwrap();
    assert_eq!(stored.view, endpoint());
    assert_eq!(stored.boot, boot());
    assert_eq!(operation_of(&bytes), Some(operation()));
}

#[test]
fn ports_that_are_due_stand_in_a_record_only_while_they_are() {
    let text = |view| String::from_utf8(encode_endpoint(view, &operation(), &boot()).unwrap());
    let plain = text(&endpoint()).unwrap();
    assert!(!plain.contains("ports_due") && !plain.contains("ports_revoked"));
    let mut view = endpoint();
    view.ports_due.clone_from(&view.endpoint.spec.ports);
    view.ports_revoked.clone_from(&view.endpoint.ports);
    let bytes = encode_endpoint(&view, &operation(), &boot()).unwrap();
    assert_eq!(decode_endpoint(&bytes).unwrap().view, view);
}

#[test]
fn the_drawing_of_a_network_record_is_true() {
    let text = String::from_utf8(encode_network(&network(), &operation()).unwrap()).unwrap();
    assert_eq!(
        text,
        r#"{"schema":1,"kind":"network","operation":"0af1","body":{"id":"n1","state":"ready","created_ms":7,"driver":"bridge","internal":true,"subnets":[{"subnet":"10.9.0.0/16","gateway":"10.9.0.1","auxiliary":{"a":"10.9.0.9"}}],"options":{"netloom.mtu":"1400"}}}"#
    );
}

#[test]
fn a_newer_schema_is_named_even_when_its_body_is_foreign() {
    let bytes = br#"{"schema":2,"operation":"x","whatever":{}}"#;
    assert!(matches!(
        decode_network(bytes),
        Err(RecordError::NewerSchema { found: 2 })
    ));
}

#[test]
fn damage_is_refused_and_never_guessed_at() {
    let good = String::from_utf8(encode_endpoint(&endpoint(), &operation(), &boot()).unwrap());
    let good = good.unwrap();
    for (from, to) in [
        ("\"kind\":\"endpoint\"", "\"kind\":\"network\""),
        ("\"state\":\"joined\"", "\"state\":\"odd\""),
        ("10.9.0.2/16", "10.9.0.2/99"),
        ("\"id\":\"e1\"", "\"id\":\"../e1\""),
        ("\"options\"", "\"unknown\":1,\"options\""),
        ("[8080,8090]", "[8090,8080]"),
        ("\"schema\":1", "\"schema\":0"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from} is not in the record");
        assert!(decode_endpoint(bad.as_bytes()).is_err(), "{to} was taken");
    }
    for cut in 0..good.len() {
        assert!(decode_endpoint(&good.as_bytes()[..cut]).is_err());
    }
    assert!(decode_endpoint(&[0xff, 0]).is_err());
}

#[test]
fn a_record_that_the_store_cannot_hold_is_refused_before_it_is_sent() {
    let mut big = network();
    big.spec.options.insert("k".into(), "x".repeat(70_000));
    assert!(matches!(
        encode_network(&big, &operation()),
        Err(RecordError::TooLarge { .. })
    ));
}

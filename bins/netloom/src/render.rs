//! Answers as text for people. Pure: text in, text out.

use comfy_table::{Table, presets};
use netloom_api::{
    Address, AddressKind, AuditReport, Endpoint, EndpointState, Finding, Health, Network,
    NetworkState, Pool, Port, Removed, Repair, Status,
};
use std::fmt::Write;

/// An error with its causes, on one line each.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let _ = write!(text, "\n  because: {cause}");
    }
    text
}

pub(crate) fn status(status: &Status) -> String {
    let docker = status.docker.as_deref().unwrap_or("does not answer");
    let mut text = format!(
        "netloomd {} up {}, host {}, store {}\nDocker    {docker}\nrelay     {}\n\
         networks  {}\nendpoints {}\npools     {} ({} addresses in use)\nports     {}\n",
        status.version,
        duration(status.uptime_s),
        status.host,
        status.store,
        health(status.relay),
        status.networks,
        status.endpoints,
        status.pools,
        status.addresses,
        status.ports,
    );
    let failed: u64 = status.calls.iter().map(|call| call.failed).sum();
    let ok: u64 = status.calls.iter().map(|call| call.ok).sum();
    let _ = writeln!(text, "calls     {ok} answered well, {failed} with an error");
    if status.findings.is_empty() {
        text.push_str("audit     everything agrees\n");
    } else {
        text.push('\n');
        status
            .findings
            .iter()
            .for_each(|one| text.push_str(&finding(one)));
    }
    text
}

pub(crate) fn networks(networks: &[Network]) -> String {
    table(
        [
            "NETWORK",
            "ID",
            "DRIVER",
            "SUBNETS",
            "REACH",
            "ENDPOINTS",
            "STATE",
        ],
        networks.iter().map(|n| {
            let subnets: Vec<_> = n.subnets.iter().map(|s| s.subnet.as_str()).collect();
            [
                n.name.clone().unwrap_or_else(|| "-".to_owned()),
                short(&n.id).to_owned(),
                n.driver.clone(),
                subnets.join(" "),
                if n.internal { "internal" } else { "external" }.to_owned(),
                n.endpoints.to_string(),
                network_state(n.state).to_owned(),
            ]
        }),
    )
}

pub(crate) fn network(n: &Network) -> String {
    let mut text = format!(
        "network   {}\nid        {}\ndriver    {}\nstate     {}\nreach     {}\nendpoints {}\n",
        n.name.as_deref().unwrap_or("- (Docker does not answer)"),
        n.id,
        n.driver,
        network_state(n.state),
        if n.internal { "internal" } else { "external" },
        n.endpoints,
    );
    for subnet in &n.subnets {
        let gateway = subnet.gateway.as_deref().unwrap_or("none");
        let _ = writeln!(text, "subnet    {} gateway {gateway}", subnet.subnet);
        for (name, ip) in &subnet.auxiliary {
            let _ = writeln!(text, "          {name} {ip}");
        }
    }
    for (key, value) in &n.options {
        let _ = writeln!(text, "option    {key}={value}");
    }
    text
}

pub(crate) fn endpoints(endpoints: &[Endpoint]) -> String {
    table(
        [
            "CONTAINER",
            "NETWORK",
            "IPV4",
            "IPV6",
            "MAC",
            "STATE",
            "ENDPOINT",
        ],
        endpoints.iter().map(|e| {
            [
                e.container.clone().unwrap_or_else(|| "-".to_owned()),
                e.network_name
                    .clone()
                    .unwrap_or_else(|| short(&e.network).to_owned()),
                e.ipv4.clone().unwrap_or_else(|| "-".to_owned()),
                e.ipv6.clone().unwrap_or_else(|| "-".to_owned()),
                e.mac.clone(),
                endpoint_state(e.state).to_owned(),
                short(&e.id).to_owned(),
            ]
        }),
    )
}

pub(crate) fn endpoint(e: &Endpoint) -> String {
    let mut text = format!(
        "endpoint  {}\ncontainer {}\nnetwork   {} ({})\nstate     {}\nmac       {}\n",
        e.id,
        e.container.as_deref().unwrap_or("-"),
        e.network_name.as_deref().unwrap_or("-"),
        short(&e.network),
        endpoint_state(e.state),
        e.mac,
    );
    for (label, value) in [("ipv4", &e.ipv4), ("ipv6", &e.ipv6), ("netns", &e.netns)] {
        if let Some(value) = value {
            let _ = writeln!(text, "{label:<9} {value}");
        }
    }
    for port in &e.ports {
        let _ = writeln!(text, "port      {}", port_line(port));
    }
    text
}

pub(crate) fn ports(ports: &[Port]) -> String {
    table(
        ["CONTAINER", "PUBLISHED", "TO"],
        ports.iter().map(|p| {
            [
                p.container
                    .clone()
                    .unwrap_or_else(|| short(&p.endpoint).to_owned()),
                format!("{}/{}", socket(&p.host_ip, p.host_port), p.protocol),
                socket(&p.container_ip, p.container_port),
            ]
        }),
    )
}

pub(crate) fn pools(pools: &[Pool]) -> String {
    table(
        ["SUBNET", "SPACE", "RANGE", "IN USE", "OF", "FULL", ""],
        pools.iter().map(|p| {
            [
                p.subnet.clone(),
                p.space.clone(),
                p.range.clone().unwrap_or_else(|| "-".to_owned()),
                p.used.to_string(),
                p.capacity.to_string(),
                percent(p.used, p.capacity),
                picture(&p.fill, 16),
            ]
        }),
    )
}

pub(crate) fn pool(p: &Pool, found: &[Address]) -> String {
    let mut text = format!(
        "pool      {}\nspace     {}\nrange     {}\ngateway   {}\nin use    {} of {} ({})\n\
         free      {}\n",
        p.subnet,
        p.space,
        p.range.as_deref().unwrap_or("all of it"),
        p.gateway.as_deref().unwrap_or("none"),
        p.used,
        p.capacity,
        percent(p.used, p.capacity),
        p.capacity.saturating_sub(p.used),
    );
    let _ = writeln!(text, "full      [{}]", picture(&p.fill, 64));
    for reference in &p.references {
        let _ = writeln!(text, "reference {reference}");
    }
    if !found.is_empty() {
        text.push('\n');
        text.push_str(&addresses(found));
    }
    text
}

pub(crate) fn addresses(addresses: &[Address]) -> String {
    table(
        ["ADDRESS", "USE", "CONTAINER", "MAC", "POOL"],
        addresses.iter().map(|a| {
            [
                a.ip.clone(),
                address_kind(a.kind).to_owned(),
                a.name.clone().unwrap_or_else(|| "-".to_owned()),
                a.mac.clone().unwrap_or_else(|| "-".to_owned()),
                a.pool.clone(),
            ]
        }),
    )
}

pub(crate) fn report(report: &AuditReport, all_well: &str) -> String {
    let mut text = String::new();
    for source in &report.not_asked {
        let _ = writeln!(text, "not asked: {source}");
    }
    report
        .findings
        .iter()
        .for_each(|one| text.push_str(&finding(one)));
    match report.findings.len() {
        0 => {
            let _ = writeln!(text, "{all_well}");
        }
        count => {
            let _ = writeln!(text, "{count} found");
        }
    }
    text
}

pub(crate) fn removed(removed: &Removed) -> String {
    let mut text = String::new();
    for line in &removed.removed {
        let _ = writeln!(text, "removed {line}");
    }
    if removed.removed.is_empty() {
        text.push_str("there was nothing of ours\n");
    }
    text
}

fn finding(finding: &Finding) -> String {
    let repair = match finding.repair {
        Repair::Done => "mended",
        Repair::ByRepair => "`netloom audit --repair` mends it",
        Repair::ByHand => "to be mended by hand",
    };
    let mut text = format!(
        "{}: {}\n  {}\n",
        finding.kind, finding.subject, finding.detail
    );
    let _ = writeln!(text, "  {repair}");
    if !finding.next_step.is_empty() {
        let _ = writeln!(text, "  next: {}", finding.next_step);
    }
    text
}

fn port_line(port: &Port) -> String {
    format!(
        "{}/{} -> {}",
        socket(&port.host_ip, port.host_port),
        port.protocol,
        socket(&port.container_ip, port.container_port)
    )
}

fn socket(ip: &str, port: u16) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// Up to `width` characters, each standing for an equal part: `.` empty to `#` full.
fn picture(fill: &[u8], width: usize) -> String {
    let per_char = fill.len().div_ceil(width.max(1)).max(1);
    fill.chunks(per_char)
        .map(|part| {
            let sum: usize = part.iter().map(|share| usize::from(*share)).sum();
            match sum.div_ceil(part.len()) {
                0 => '.',
                1..=85 => '-',
                86..=170 => '+',
                171..=254 => '*',
                _ => '#',
            }
        })
        .collect()
}

fn percent(used: u64, capacity: u64) -> String {
    match u128::from(used)
        .saturating_mul(1000)
        .checked_div(u128::from(capacity))
    {
        Some(tenths) => format!("{}.{} %", tenths / 10, tenths % 10),
        None => "-".to_owned(),
    }
}

pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.for_each(|row| {
        table.add_row(row);
    });
    let mut text = String::new();
    for line in table.to_string().lines() {
        let _ = writeln!(
            text,
            "{}",
            line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end())
        );
    }
    text
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3_600);
    let (minutes, seconds) = (seconds % 3_600 / 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Down => "does not answer: start it (systemctl start netloom-relay)",
        Health::Off => "switched off",
    }
}

fn network_state(state: NetworkState) -> &'static str {
    match state {
        NetworkState::Creating => "creating",
        NetworkState::Ready => "ready",
        NetworkState::Deleting => "deleting",
    }
}

fn endpoint_state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Created => "created",
        EndpointState::Joining => "joining",
        EndpointState::Joined => "joined",
        EndpointState::Leaving => "leaving",
        EndpointState::Deleting => "deleting",
    }
}

fn address_kind(kind: AddressKind) -> &'static str {
    match kind {
        AddressKind::Gateway => "gateway",
        AddressKind::Endpoint => "container",
        AddressKind::InDoubt => "in doubt",
        AddressKind::Auxiliary => "auxiliary",
        AddressKind::Reserved => "reserved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_tells_a_single_address_from_none() {
        assert_eq!(picture(&[0, 1, 128, 200, 255], 64), ".-+*#");
        assert_eq!(picture(&[0; 64], 16), "................");
        let mut one = [0; 64];
        one[5] = 1;
        assert_eq!(picture(&one, 16), ".-..............");
    }

    #[test]
    fn an_empty_pool_has_no_share() {
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0 %");
    }

    #[test]
    fn tables_align_and_keep_their_header_when_empty() {
        let port = Port {
            protocol: "tcp".into(),
            host_ip: "::".into(),
            host_port: 8080,
            container_ip: "fd00::2".into(),
            container_port: 80,
            endpoint: "e".repeat(64),
            container: Some("web".into()),
        };
        let expected = "CONTAINER  PUBLISHED      TO\nweb        [::]:8080/tcp  [fd00::2]:80\n";
        assert_eq!(ports(&[port]), expected);
        assert_eq!(ports(&[]), "CONTAINER  PUBLISHED  TO\n");
    }

    #[test]
    fn a_finding_says_what_happened_and_what_to_do() {
        let report_of = |findings| AuditReport {
            not_asked: vec![],
            findings,
        };
        assert_eq!(
            report(&report_of(vec![]), "everything agrees"),
            "everything agrees\n"
        );
        let found = Finding {
            kind: "stray-link".into(),
            subject: "nlv0123456789".into(),
            detail: "it carries our tag, and no endpoint on record has it".into(),
            repair: Repair::ByRepair,
            next_step: "netloom audit --repair".into(),
        };
        let text = report(&report_of(vec![found]), "everything agrees");
        assert!(text.starts_with("stray-link: nlv0123456789\n"), "{text}");
        assert!(
            text.ends_with("next: netloom audit --repair\n1 found\n"),
            "{text}"
        );
    }
}

//! The commands about the store that hosts share, and about those hosts.

use crate::Verdict;
use crate::args::{ClusterCommand, HostCommand};
use crate::commands::Output;
use crate::render::{short, table};
use anyhow::{Context, bail};
use netloom_api::{Client, Cluster, ForgetHost, Forgotten, Host, Membership, StandingKind};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

pub(crate) async fn cluster(
    client: &Client,
    output: Output,
    command: ClusterCommand,
) -> anyhow::Result<Verdict> {
    match command {
        ClusterCommand::Init => {
            let made = client.init_cluster().await?;
            output.print(&made, |made| {
                format!("the store is initialised; epoch {} begins\n", made.epoch)
            })
        }
        ClusterCommand::Status => {
            let status = client.cluster().await?;
            output.print(&status, render)?;
            Ok(match status.standing {
                StandingKind::Alone | StandingKind::Joined => Verdict::Fine,
                _ => Verdict::Findings,
            })
        }
    }
}

pub(crate) async fn host(
    client: &Client,
    output: Output,
    command: HostCommand,
) -> anyhow::Result<Verdict> {
    match command {
        HostCommand::Ls => output.print(&client.hosts().await?, |hosts| list(hosts)),
        HostCommand::Inspect { host } => {
            output.print(&find(client.hosts().await?, &host)?, inspect)
        }
        HostCommand::Forget { host, yes } => {
            let waiting = client.cluster().await?.waiting;
            let lost = lost(client.hosts().await?, waiting, &host)?;
            if !yes {
                ask(&lost)?;
            }
            let wish = ForgetHost { host: lost.id };
            output.print(&client.forget_host(&wish).await?, forgotten)
        }
    }
}

/// The one host on record that `wanted` names: its id, or the beginning of it.
fn find(hosts: Vec<Host>, wanted: &str) -> anyhow::Result<Host> {
    one(hosts, wanted, "`netloom host ls` lists them", |host| {
        &host.id
    })
}

/// A host that is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lost {
    id: String,
    /// How many addresses it owns; none when the store lost its record.
    owned: Option<u64>,
}

/// The one host that `wanted` names, of those on record and those that are waited for: a store that lost its
/// past may know of a host that others wait for it, and nothing else.
fn lost(hosts: Vec<Host>, waiting: Vec<String>, wanted: &str) -> anyhow::Result<Lost> {
    let mut all: Vec<Lost> = hosts
        .into_iter()
        .map(|host| Lost {
            owned: Some(host.shares.iter().map(|share| share.owned).sum()),
            id: host.id,
        })
        .collect();
    for id in waiting {
        if all.iter().all(|host| host.id != id) {
            all.push(Lost { id, owned: None });
        }
    }
    let listed =
        "`netloom host ls` lists them, and `netloom cluster status` those that are waited for";
    one(all, wanted, listed, |host| &host.id)
}

fn one<T>(
    all: Vec<T>,
    wanted: &str,
    listed: &str,
    id: impl Fn(&T) -> &String,
) -> anyhow::Result<T> {
    let (exact, begins): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|host| id(host).starts_with(wanted))
        .partition(|host| id(host) == wanted);
    let mut found = if exact.is_empty() { begins } else { exact };
    match (found.pop(), found.pop()) {
        (Some(host), None) => Ok(host),
        (Some(_), Some(_)) => bail!("several hosts have ids that begin with {wanted:?}"),
        (None, _) => bail!("there is no host {wanted:?} on record; {listed}"),
    }
}

/// A person's word, from a person.
fn ask(host: &Lost) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "there is nobody to ask; say --yes if host {} is gone for ever",
            host.id
        );
    }
    let owns = match host.owned {
        Some(owned) => format!("owns {owned} addresses. They"),
        None => "is waited for, and not on record. What it owns".to_owned(),
    };
    let mut out = std::io::stderr().lock();
    write!(
        out,
        "Host {} {owns} will be handed out to others, and its id is never accepted again.\n\
         Is it gone for ever? Write its id to say so: ",
        host.id
    )?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if answer.trim() != host.id {
        bail!("not forgotten; nothing was changed");
    }
    Ok(())
}

fn render(c: &Cluster) -> String {
    let mut text = format!(
        "host      {}\nstore     {}\nidentity  {}\nepoch     {}\nstanding  {}\n",
        c.host,
        c.url,
        c.store.as_deref().unwrap_or("never reached"),
        c.epoch,
        standing(c.standing),
    );
    if let Some(why) = &c.why {
        let _ = writeln!(text, "why       {why}");
    }
    for host in &c.waiting {
        let _ = writeln!(text, "waiting   for host {host}");
    }
    text
}

fn standing(standing: StandingKind) -> &'static str {
    match standing {
        StandingKind::Alone => "alone, with a store of its own",
        StandingKind::Joined => "joined",
        StandingKind::Healing => "healing: the store lost its past, no range changes hands",
        StandingKind::Offline => "offline: going on from the ranges that it owns",
        StandingKind::Starting => "starting: no new address before its own record is confirmed",
        StandingKind::Stopped => "stopped: it may not take part",
    }
}

fn list(hosts: &[Host]) -> String {
    table(
        ["HOST", "", "STANDS AS", "STARTS", "OWNS", "FREE"],
        hosts.iter().map(|host| {
            let sum = |of: fn(&netloom_api::Share) -> u64| -> String {
                let all = host.shares.iter().map(of);
                all.fold(0_u64, u64::saturating_add).to_string()
            };
            [
                short(&host.id).to_owned(),
                if host.here { "here" } else { "" }.to_owned(),
                membership(host.membership).to_owned(),
                host.starts.to_string(),
                sum(|share| share.owned),
                sum(|share| share.free),
            ]
        }),
    )
}

fn membership(membership: Membership) -> &'static str {
    match membership {
        Membership::Member => "member",
        Membership::Forgotten => "forgotten",
    }
}

fn inspect(host: &Host) -> String {
    let mut text = format!(
        "host      {}\nstands as {}\nboot      {}\nstarts    {}\nchanges   {}\n",
        host.id,
        membership(host.membership),
        host.boot,
        host.starts,
        host.counter,
    );
    if let Some(heard) = host.last_heard_ms {
        let _ = writeln!(
            text,
            "heard     {heard} (milliseconds since 1970, its own clock)"
        );
    }
    if !host.shares.is_empty() {
        text.push('\n');
        text.push_str(&table(
            ["POOL", "OWNS", "FREE"],
            host.shares.iter().map(|share| {
                [
                    share.subnet.clone(),
                    share.owned.to_string(),
                    share.free.to_string(),
                ]
            }),
        ));
    }
    text
}

fn forgotten(done: &Forgotten) -> String {
    let mut text = String::new();
    for freed in &done.freed {
        let _ = writeln!(
            text,
            "{} addresses of {} are free",
            freed.addresses, freed.subnet
        );
    }
    if done.freed.is_empty() {
        text.push_str("it is forgotten; it owned nothing\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str) -> Host {
        Host {
            id: id.to_owned(),
            here: false,
            membership: Membership::Member,
            boot: "b".to_owned(),
            starts: 1,
            counter: 2,
            last_heard_ms: None,
            shares: Vec::new(),
        }
    }

    #[test]
    fn a_host_is_found_by_the_beginning_of_its_id_if_that_is_one() {
        let hosts = || vec![host("ab1"), host("ab2"), host("ab")];
        assert_eq!(find(hosts(), "ab1").unwrap().id, "ab1");
        assert_eq!(find(hosts(), "ab").unwrap().id, "ab");
        assert!(find(hosts(), "a").is_err());
        assert!(find(hosts(), "x").is_err());
    }
    #[test]
    fn a_host_that_is_only_waited_for_can_be_forgotten() {
        let waiting = || vec!["ab1".to_owned(), "c3".to_owned()];
        let named = |wanted| lost(vec![host("ab1")], waiting(), wanted);
        assert_eq!(named("c").unwrap().owned, None);
        assert_eq!(named("ab").unwrap().owned, Some(0));
        assert!(named("x").is_err());
    }
}

//! `cargo xtask record`: what real dockerds ask of a plugin while a container lives, call by call.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use netloom_docker::recording::{Recording, RecordingHeader, RecordingProxy};
use netloom_lab::{DockerHost, Version};

use crate::{ProxyArgs, RecordArgs, interrupt, repo, setup, term};

/// The commands of `life`, as the recordings' README lists them; each must succeed.
const LIFE: &[&str] = &[
    "network create OURS --subnet 10.9.0.0/16 --aux-address printer=10.9.0.9 \
     -o com.docker.network.driver.mtu=1400 --label a=b blue",
    "network create OURS --internal inner",
    "network create OURS --ipv6 --subnet 10.8.0.0/24 --subnet fd00:8::/64 dual",
    "run -d --name web --network blue -p 8080:80 -p 127.0.0.1::53/udp -p 9000-9002:90 \
     lab sleep 1000",
    "run -d --name fixed --network blue --ip 10.9.3.3 --mac-address 02:42:0a:09:03:03 \
     lab sleep 1000",
    "network connect dual web",
    "create --name idle --network blue --network-alias sleepy --ip 10.9.4.7 lab sleep 1000",
    "start idle",
    "stop -t 0 fixed",
    "network disconnect dual web",
    "restart -t 0 web",
    "rm -f web",
    "rm -f fixed",
    "rm -f idle",
    "network rm blue",
    "network rm inner",
    "network rm dual",
];

const ABOUT: &str = "two containers on three networks: create, run, connect, stop, restart, remove";

/// The proxy is a plugin of its own name before the real one: a plugin never learns its name.
const FRONT: &str = "/run/docker/plugins/recorded.sock";

/// Records and writes, or with `--check` compares with what is in the repository.
pub(crate) fn run(args: &RecordArgs) -> Result<bool> {
    let versions = match args.docker {
        Some(version) => vec![version],
        None => Version::ALL.to_vec(),
    };
    setup::run(&args.consent, &versions)?;
    repo::build_programs()?;
    ensure!(repo::is_root(), "namespaces need root; run it with sudo");
    interrupt::remove_machines_on_interrupt()?;
    let mut good = true;
    for version in versions {
        term::heading(&format!("Recording Debian {}", version.suite()));
        let host = DockerHost::start(repo::host_options(version)?)?;
        host.start_netloom()?;
        let recording = life(&host)?;
        let file = file_of(&recording);
        if args.check {
            let differences = compare(&recording, &file)?;
            good &= differences.is_empty();
            differences.iter().for_each(|d| term::failure(d));
        } else {
            fs::write(&file, recording.to_text()?)?;
        }
        let calls = recording.exchanges.len();
        let docker = &recording.header.docker;
        term::good(&format!("{calls} calls of Docker {docker}"));
    }
    Ok(good)
}

/// What differs between a fresh recording and the one in the repository.
///
/// # Errors
/// When there is none of that version.
pub(crate) fn compare(fresh: &Recording, file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "no {}; a new Docker? `cargo xtask record` makes it",
            file.display()
        )
    })?;
    Ok(Recording::parse(&text)?.differences(fresh))
}

/// Where the recording of that Docker's `life` lies.
pub(crate) fn file_of(recording: &Recording) -> PathBuf {
    let name = format!("docker-{}-life.jsonl", recording.header.docker);
    repo::root()
        .join("crates/netloom-docker/tests/recordings")
        .join(name)
}

/// Lives through `LIFE` with the proxy in between.
pub(crate) fn life(host: &DockerHost) -> Result<Recording> {
    let docker = host.docker_version()?;
    // Debian adds a suffix for its own rebuilds: 20.10.24+dfsg1.
    let docker = docker.split('+').next().unwrap_or(&docker);
    let date = host.exec("date -u +%F")?.ok()?;
    let behind = netloom_lab::PLUGIN_SOCKET;
    let out = "/lab/life.jsonl";
    host.spawn(
        "recorder",
        &format!(
            "xtask record-proxy --front {FRONT} --behind {behind} --out {out} \
             --docker {docker} --date {date}"
        ),
    )?;
    netloom_lab::until("the recorder", 10, || host.path(FRONT).exists())?;
    for line in LIFE {
        host.docker(&line.replace("OURS", "-d recorded --ipam-driver recorded"))?;
    }
    host.stop("recorder", "TERM")?;
    fs::remove_file(host.path(FRONT))?;
    let text = fs::read_to_string(host.path(out))?;
    Ok(Recording::parse(&text)?.with_stable_ids())
}

/// Stands between dockerd and the plugin until it is ended.
pub(crate) fn proxy(args: &ProxyArgs) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(&args.front)?;
        let header = RecordingHeader::new(&args.docker, &args.date, ABOUT);
        let minutes = fs::File::create(&args.out)?;
        RecordingProxy::new(listener, &args.behind, &header, minutes)?
            .run()
            .await?;
        Ok(true)
    })
}

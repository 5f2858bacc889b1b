//! Who may use the API: root, the daemon's own user, and a group's members.

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::ffi::CString;
use tokio::net::UnixListener;

use super::error::ApiError;

/// Who connected, as the kernel says (SO_PEERCRED).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerInfo {
    credentials: Option<(u32, u32)>,
}

impl Connected<IncomingStream<'_, UnixListener>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self {
            credentials: credentials.ok().map(|c| (c.uid(), c.gid())),
        }
    }
}

/// Who is let in besides root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    own: Uid,
    group: Option<Gid>,
}

impl Admission {
    pub(crate) fn new(group: Option<Gid>) -> Self {
        Self {
            own: Uid::effective(),
            group,
        }
    }

    fn admits(self, peer: PeerInfo) -> bool {
        // A caller whom the kernel does not name is nobody.
        let Some((uid, gid)) = peer.credentials else {
            return false;
        };
        let uid = Uid::from_raw(uid);
        if uid.is_root() || uid == self.own {
            return true;
        }
        self.group
            .is_some_and(|group| group.as_raw() == gid || is_member(uid, group))
    }
}

/// Whether the user belongs to the group by the system's list of groups: the credentials of a
/// socket carry the primary group alone.
fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else {
        return false;
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// Answers 403 to everybody else.
pub(super) async fn only_admitted(
    State(admission): State<Admission>,
    ConnectInfo(peer): ConnectInfo<PeerInfo>,
    request: Request,
    next: Next,
) -> Response {
    if admission.admits(peer) {
        return next.run(request).await;
    }
    tracing::warn!(?peer, "a caller of the API was refused");
    ApiError::new(
        StatusCode::FORBIDDEN,
        "only root and members of the group in netloomd's setting api_group may use this socket",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> PeerInfo {
        PeerInfo {
            credentials: Some((uid, gid)),
        }
    }

    #[test]
    fn only_root_the_owner_and_the_group_come_in() {
        let admission = Admission {
            own: Uid::from_raw(500),
            group: Some(Gid::from_raw(600)),
        };
        assert!(admission.admits(peer(0, 0)));
        assert!(admission.admits(peer(500, 1)));
        assert!(admission.admits(peer(54321, 600)));
        assert!(!admission.admits(peer(54321, 601)));
        assert!(!admission.admits(PeerInfo { credentials: None }));
        let alone = Admission {
            group: None,
            ..admission
        };
        assert!(!alone.admits(peer(54321, 600)));
    }
}

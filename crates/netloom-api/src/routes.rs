//! The table of routes: the daemon's router, the client and the OpenAPI document are held against it.

/// An HTTP method that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads; changes nothing.
    Get,
    /// Does or makes something.
    Post,
    /// Removes something.
    Delete,
}

impl Method {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// One thing that the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; a part in braces is a parameter.
    pub path: &'static str,
    /// The operation's name, for generated clients.
    pub operation: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The name of the request's type; none for no body.
    pub request: Option<&'static str>,
    /// The name of the answer's type.
    pub response: Response,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// One value of this type.
    One(&'static str),
    /// A list of this type.
    List(&'static str),
    /// Text in the named media type.
    Text(&'static str),
    /// A JSON document of its own kind.
    Document,
    /// Nothing (status 204).
    Empty,
}

const fn get(
    path: &'static str,
    operation: &'static str,
    response: Response,
    summary: &'static str,
) -> Route {
    Route {
        method: Method::Get,
        path,
        operation,
        summary,
        request: None,
        response,
    }
}

const fn post(
    (path, operation): (&'static str, &'static str),
    request: &'static str,
    response: Response,
    summary: &'static str,
) -> Route {
    Route {
        method: Method::Post,
        path,
        operation,
        summary,
        request: Some(request),
        response,
    }
}

const fn delete(path: &'static str, operation: &'static str, summary: &'static str) -> Route {
    let method = Method::Delete;
    Route {
        method,
        path,
        operation,
        summary,
        request: None,
        response: Response::Empty,
    }
}

/// All routes.
///
/// A pool's subnet holds a slash, so it travels as a query (`?subnet=10.9.0.0/16`), not as a path.
pub const ROUTES: &[Route] = &[
    get(
        "/v1/status",
        "status",
        Response::One("Status"),
        "How the daemon is.",
    ),
    get(
        "/v1/health",
        "health",
        Response::Text("text/plain"),
        "`ok` while the daemon can serve.",
    ),
    get(
        "/v1/metrics",
        "metrics",
        Response::Text("text/plain"),
        "Metrics in Prometheus' format.",
    ),
    get(
        "/v1/openapi.json",
        "openapi",
        Response::Document,
        "This document.",
    ),
    get(
        "/v1/networks",
        "networks",
        Response::List("Network"),
        "All networks.",
    ),
    get(
        "/v1/networks/{id}",
        "network",
        Response::One("Network"),
        "One network, by id or name.",
    ),
    post(
        ("/v1/networks", "create_network"),
        "CreateNetwork",
        Response::One("Network"),
        "Makes a network through Docker's API.",
    ),
    delete(
        "/v1/networks/{id}",
        "remove_network",
        "Removes a network through Docker's API.",
    ),
    get(
        "/v1/endpoints",
        "endpoints",
        Response::List("Endpoint"),
        "All endpoints.",
    ),
    get(
        "/v1/endpoints/{id}",
        "endpoint",
        Response::One("Endpoint"),
        "One endpoint, by id or by its container's name.",
    ),
    get(
        "/v1/ports",
        "ports",
        Response::List("Port"),
        "All published ports.",
    ),
    get(
        "/v1/pools",
        "pools",
        Response::List("Pool"),
        "All address pools.",
    ),
    get(
        "/v1/addresses",
        "addresses",
        Response::List("Address"),
        "The addresses that are not free; `?subnet=` for one pool.",
    ),
    post(
        ("/v1/reservations", "reserve"),
        "Reservation",
        Response::Empty,
        "Keeps an address for somebody.",
    ),
    delete("/v1/reservations/{ip}", "unreserve", "Ends a reservation."),
    post(
        ("/v1/audit", "audit"),
        "AuditRequest",
        Response::One("AuditReport"),
        "Compares records, journal, kernel and Docker; mends what it finds when asked to.",
    ),
    get(
        "/v1/doctor",
        "doctor",
        Response::One("AuditReport"),
        "What is wrong with this host.",
    ),
    post(
        ("/v1/uninstall", "uninstall"),
        "UninstallRequest",
        Response::One("Removed"),
        "Removes everything of ours from the kernel.",
    ),
    get(
        "/v1/cluster",
        "cluster",
        Response::One("Cluster"),
        "How this host stands to the store that it shares with others.",
    ),
    post(
        ("/v1/cluster/init", "init_cluster"),
        "Nothing",
        Response::One("Initialised"),
        "Initialises an empty store; no daemon ever does that by itself.",
    ),
    get(
        "/v1/hosts",
        "hosts",
        Response::List("Host"),
        "All hosts on record, forgotten ones included.",
    ),
    post(
        ("/v1/hosts/forget", "forget_host"),
        "ForgetHost",
        Response::One("Forgotten"),
        "Declares a host gone for ever, and frees what it owned.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_route_and_no_operation_stands_twice() {
        let routes: BTreeSet<_> = ROUTES.iter().map(|r| (r.method, r.path)).collect();
        let operations: BTreeSet<_> = ROUTES.iter().map(|r| r.operation).collect();
        assert_eq!(routes.len(), ROUTES.len());
        assert_eq!(operations.len(), ROUTES.len());
    }
}

//! The HTTP edge: reads a body within bounds, finds the call, waits for it within its deadline.

use crate::failure::Failure;
use crate::method::{BodyRule, Method};
use crate::{CallOutcome, PluginState, ipam_calls, network_calls};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method as Verb, StatusCode, header};
use axum::response::Response;
use http_body_util::LengthLimitError;
use serde_json::{Value, json};
use std::error::Error;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

/// Docker's largest calls carry a few hundred port mappings; a megabyte holds ten thousand.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What Docker's newest plugin client asks for in `Accept`; none of its versions checks it.
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");

/// What a call gives back.
pub(crate) type Answer = Result<Value, Failure>;

/// The server of both plugin protocols, for `axum::serve` on a unix socket.
///
/// Every call is answered within the deadline of the settings. A call that takes longer gets an
/// error as its answer while its work goes on to its end: half a network would be worse than a late
/// one. Headers are not looked at, since dockerd sends no `Content-Type` and, in old versions, an
/// escaped path as `Host`.
pub fn router(state: PluginState) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(State(state): State<PluginState>, request: Request) -> Response {
    let begun = Instant::now();
    let observer = state.observer.clone();
    let method = Method::from_path(request.uri().path());
    let name = method.map_or("unknown", Method::name);
    let result = call(state, method, request).await;
    let elapsed = begun.elapsed();
    let (status, body, outcome) = match &result {
        Ok(value) => {
            debug!(method = name, ?elapsed, "answered");
            (StatusCode::OK, value.to_string(), CallOutcome::Done)
        }
        Err(failure) => {
            report(name, failure);
            let body = failure.body().to_string();
            (failure.status(), body, failure.outcome())
        }
    };
    observer.finished(name, outcome, elapsed);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

fn report(method: &'static str, failure: &Failure) {
    let (why, cause) = (failure.outer(), failure.inner().unwrap_or("none given"));
    match failure.outcome() {
        CallOutcome::Broken => error!(method, why, "the handler of a plugin call panicked"),
        CallOutcome::TimedOut => warn!(method, why, "a plugin call ran into its deadline"),
        CallOutcome::Malformed => warn!(method, why, "a plugin call was not understood"),
        CallOutcome::Refused | CallOutcome::Done => {
            info!(method, why, cause, "a plugin call was refused");
        }
    }
}

async fn call(state: PluginState, method: Option<Method>, request: Request) -> Answer {
    if request.method() != Verb::POST {
        return Err(Failure::protocol(
            StatusCode::METHOD_NOT_ALLOWED,
            "plugin calls are POST requests",
        ));
    }
    let Some(method) = method else {
        return Err(Failure::protocol(
            StatusCode::NOT_FOUND,
            "this plugin has no such call",
        ));
    };
    let deadline = state.settings.deadline;
    let until = Instant::now() + deadline;
    let body = match timeout_at(until, read(request.into_body())).await {
        Ok(body) => body?,
        Err(_) => {
            return Err(Failure::protocol(
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not arrive; nothing was done",
            ));
        }
    };
    if method.body() == BodyRule::Required && body.iter().all(u8::is_ascii_whitespace) {
        // dockerd repeats a call whose connection broke, but its body is spent by then. The
        // first try may or may not have been done, so the only true answer is an error.
        return Err(Failure::protocol(
            StatusCode::BAD_REQUEST,
            "the call came without its body, because the connection to netloom broke in the middle \
             of it; run the docker command again",
        ));
    }
    let mut work = tokio::spawn(perform(state.clone(), method, body));
    match timeout_at(until, &mut work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panicked)) => Err(Failure::broken(format!(
            "{} failed inside netloomd; its log tells more",
            method.name()
        ))),
        Err(_) => {
            tokio::spawn(settle(state, method, work));
            Err(Failure::timed_out(format!(
                "{} was not finished within {deadline:?} and goes on in the background; \
                 see `netloom status`, then run the docker command again",
                method.name()
            )))
        }
    }
}

/// Waits for work whose caller was already told that it failed.
///
/// A pool reference is known to nobody then, and every request gets another one, so it is given
/// back at once. Addresses, networks and endpoints are left to the audit: a repeat of the call may
/// own them by now.
async fn settle(state: PluginState, method: Method, work: tokio::task::JoinHandle<Answer>) {
    let Ok(answer) = work.await else {
        error!(method = method.name(), "a late plugin call panicked");
        return;
    };
    let done = answer.is_ok();
    warn!(
        method = method.name(),
        done, "a plugin call was finished after its deadline"
    );
    let pool = answer.ok().filter(|_| method == Method::RequestPool);
    if let Some(pool) = pool.as_ref().and_then(ipam_calls::granted)
        && let Err(failure) = state.ipam.release_pool(&pool).await
    {
        let why = failure.to_string();
        warn!(%pool, why, "a late pool was not given back; the audit will find it");
    }
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|error| {
            if error
                .source()
                .is_some_and(|source| source.is::<LengthLimitError>())
            {
                let text = format!("the request is longer than {BODY_BYTES_MAX} bytes");
                Failure::protocol(StatusCode::PAYLOAD_TOO_LARGE, text)
            } else {
                Failure::bad_body("its body ended early")
            }
        })
}

async fn perform(state: PluginState, method: Method, body: Bytes) -> Answer {
    match method {
        Method::Activate => Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
        Method::NetworkCapabilities => Ok(network_calls::capabilities()),
        Method::GwAllocCheck => network_calls::gateway_check(&body),
        Method::AllocateNetwork => network_calls::allocate_network(&body),
        Method::FreeNetwork => network_calls::free_network(&body),
        Method::CreateNetwork => network_calls::create_network(&state, &body).await,
        Method::DeleteNetwork => network_calls::delete_network(&state, &body).await,
        Method::CreateEndpoint => network_calls::create_endpoint(&state, &body).await,
        Method::EndpointOperInfo => network_calls::oper_info(&body),
        Method::DeleteEndpoint => network_calls::delete_endpoint(&state, &body).await,
        Method::Join => network_calls::join(&state, &body).await,
        Method::Leave => network_calls::leave(&state, &body).await,
        Method::ProgramExternalConnectivity => network_calls::publish(&state, &body).await,
        Method::RevokeExternalConnectivity => network_calls::revoke(&state, &body).await,
        Method::DiscoverNew | Method::DiscoverDelete => network_calls::discover(&body),
        Method::IpamCapabilities => Ok(ipam_calls::capabilities()),
        Method::DefaultAddressSpaces => Ok(ipam_calls::address_spaces()),
        Method::RequestPool => ipam_calls::request_pool(&state, &body).await,
        Method::ReleasePool => ipam_calls::release_pool(&state, &body).await,
        Method::RequestAddress => ipam_calls::request_address(&state, &body).await,
        Method::ReleaseAddress => ipam_calls::release_address(&state, &body).await,
    }
}

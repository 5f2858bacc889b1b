//! Errors as answers: the status says what the caller can do, the body says what happened.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use netloom_core::{ControlError, DriverError, IpamError, RuntimeError};

use crate::docker_admin::DockerError;
use crate::error_chain;

/// An error answer.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = netloom_api::ErrorBody { error: self.text };
        (self.status, Json(body)).into_response()
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::Invalid(_) | ControlError::Driver(DriverError::Invalid(_)) => {
                StatusCode::BAD_REQUEST
            }
            ControlError::NotFound(_) => StatusCode::NOT_FOUND,
            ControlError::Conflict(_)
            | ControlError::State(_)
            | ControlError::Driver(DriverError::Conflict(_) | DriverError::Exhausted(_)) => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error_chain(&error))
    }
}

impl From<IpamError> for ApiError {
    fn from(error: IpamError) -> Self {
        let status = match &error {
            IpamError::Invalid(_) => StatusCode::BAD_REQUEST,
            IpamError::NotFound(_) => StatusCode::NOT_FOUND,
            IpamError::InUse(_) | IpamError::Exhausted(_) => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error_chain(&error))
    }
}

impl From<DockerError> for ApiError {
    fn from(error: DockerError) -> Self {
        let status = match &error {
            // Docker's own classes are HTTP's; what it calls its own failure is ours to pass on.
            DockerError::Refused { status, .. } if status.is_client_error() => *status,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error_chain(&error))
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, error_chain(&error))
    }
}

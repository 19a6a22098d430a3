//! What a request's first line says beside its route; must not know what is done with it.

use axum::extract::{
    Path, Query,
    rejection::{PathRejection, QueryRejection},
};

use super::ApiError;

/// The path's id, which may not be text.
pub(super) type Id = Result<Path<String>, PathRejection>;

/// What stands behind the `?`.
pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The id.
pub(super) fn id(id: Id) -> Result<String, ApiError> {
    id.map(|Path(id)| id).map_err(|error| ApiError::malformed(format!("the path is not valid: {error}")))
}

/// Names and values, in the order in which they stand there.
pub(super) fn pairs(query: Pairs) -> Result<Vec<(String, String)>, ApiError> {
    query.map(|Query(pairs)| pairs).map_err(|error| ApiError::malformed(format!("the query is not valid: {error}")))
}

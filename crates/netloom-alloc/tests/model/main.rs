//! The bitmaps against a naive model: by random operations, and in every small state.

mod exhaustive;
mod naive;
mod random;

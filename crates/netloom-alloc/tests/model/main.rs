//! The bitmaps against a naive model: by random operations, and in every small state.

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod random;

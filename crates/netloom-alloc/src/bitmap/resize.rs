//! Growing and shrinking.

use super::Bitmap;
use crate::ResizeError;
use crate::shape::Shape;

impl Bitmap {
    /// Changes the capacity; new numbers are free. This takes new memory and copies.
    ///
    /// ```
    /// use netloom_alloc::{Bitmap, ResizeError};
    ///
    /// let mut map = Bitmap::new(64)?;
    /// map.allocate_at(60)?;
    /// map.resize(1 << 20)?;
    /// assert_eq!(map.resize(32), Err(ResizeError::InUse { index: 60 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When `capacity` is above [`crate::BITS_MAX`], or a number behind the new end is taken;
    /// nothing changes then.
    pub fn resize(&mut self, capacity: usize) -> Result<(), ResizeError> {
        let shape = Shape::new(capacity).ok_or(ResizeError::TooLarge { bits: capacity })?;
        if let Some(index) = self.next_taken(capacity) {
            return Err(ResizeError::InUse { index });
        }
        let mut start = self.start;
        start.clamp(capacity);
        *self = Self::from_leaves(shape, start, self.leaves());
        Ok(())
    }
}

//! Memory that begins at a cache line, so that no vector load touches two.

const LINE_BYTES: usize = 64;

/// Numbers in memory that is used again; they are zero when they are first lent.
#[derive(Debug, Default)]
pub(super) struct Aligned<T> {
    memory: Vec<T>,
    from: usize,
    length: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Lends `length` numbers, with what was left in them; what was lent before is gone where more are asked for.
    pub(super) fn lend(&mut self, length: usize) -> &mut [T] {
        let spare = LINE_BYTES / size_of::<T>();
        if self.memory.len() < length + spare {
            // Zeroed pages of the system, not copies of the old ones.
            self.memory = Vec::new();
            self.memory = vec![T::default(); length + spare];
            // A pointer that cannot be aligned costs speed only.
            self.from = self.memory.as_ptr().align_offset(LINE_BYTES).min(spare);
        }
        self.length = length;
        &mut self.memory[self.from..self.from + length]
    }

    /// What was lent last.
    pub(super) fn all(&self) -> &[T] {
        &self.memory[self.from..self.from + self.length]
    }
}

//! A table over indexes or offsets, which begin near 0 and have few gaps.

/// See the module.
#[derive(Clone, Debug)]
pub struct ByIndex<T> {
    /// By index.
    slots: Vec<Option<T>>,
}

impl<T> Default for ByIndex<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T> ByIndex<T> {
    /// What is known at `index`.
    pub fn get(&self, index: u64) -> Option<&T> {
        self.slots.get(index as usize)?.as_ref()
    }

    /// The place of `index`, to be filled or changed.
    pub fn slot(&mut self, index: u64) -> &mut Option<T> {
        let index = index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        &mut self.slots[index]
    }

    /// One more than the highest index at which something is known.
    pub fn end(&self) -> u64 {
        self.slots.len() as u64
    }
}

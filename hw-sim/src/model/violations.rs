//! What a driver did that its device's manual forbids.

/// Violations that are kept; a wild driver may commit any number.
const MOST: usize = 256;

/// Each violation once, in order.
#[derive(Default)]
pub(super) struct Violations(Vec<String>);

impl Violations {
    pub(super) fn add(&mut self, what: String) {
        if self.0.len() < MOST && !self.0.contains(&what) {
            self.0.push(what);
        }
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.0.clone()
    }
}

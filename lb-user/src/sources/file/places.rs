//! One copy of every place, however many endpoints are there.

use std::{collections::HashSet, sync::Arc};

use crate::model::Place;

/// The places that have been seen.
#[derive(Default)]
pub(super) struct Places(HashSet<Arc<Place>>);

impl Places {
    /// The place as all its endpoints share it; `None` if it says nothing.
    pub fn share(&mut self, place: Place) -> Option<Arc<Place>> {
        if place == Place::default() {
            return None;
        }
        if let Some(known) = self.0.get(&place) {
            return Some(Arc::clone(known));
        }
        let new = Arc::new(place);
        self.0.insert(Arc::clone(&new));
        Some(new)
    }
}

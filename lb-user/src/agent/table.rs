//! A map of which the agent is the only writer: what it holds is known, and only what differs is written.

use std::{collections::HashMap, hash::Hash};

use aya::{
    Pod,
    maps::{HashMap as Rows, MapData, MapError},
};

/// What a map holds.
pub struct Table<K, V>(HashMap<K, V>);

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Table<K, V> {
    /// What an agent before us has written.
    pub fn adopt(rows: &Rows<MapData, K, V>) -> Self {
        Table(rows.iter().flatten().collect())
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A row.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// Makes these the rows that there are, in place; whether anything had to be written. Whatever can be written is
    /// where there is an error, and the rest with the next call.
    pub fn update(
        &mut self,
        rows: &mut Rows<MapData, K, V>,
        wanted: &HashMap<K, V>,
    ) -> Result<bool, MapError> {
        let removed = self.retain(rows, wanted);
        let added = self.add(rows, wanted);
        Ok(removed? | added?)
    }

    /// Removes what is none of these rows' keys.
    pub fn retain(
        &mut self,
        rows: &mut Rows<MapData, K, V>,
        wanted: &HashMap<K, V>,
    ) -> Result<bool, MapError> {
        let unwanted: Vec<K> = self.0.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let (changed, mut problem) = (!unwanted.is_empty(), None);
        for key in unwanted {
            match rows.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {
                    self.0.remove(&key);
                }
                Err(error) => problem = Some(error),
            }
        }
        problem.map_or(Ok(changed), Err)
    }

    /// Writes these rows, and leaves others as they are.
    pub fn add(&mut self, rows: &mut Rows<MapData, K, V>, wanted: &HashMap<K, V>) -> Result<bool, MapError> {
        let missing: Vec<(K, V)> = wanted
            .iter()
            .filter(|(key, row)| self.0.get(key) != Some(row))
            .map(|(key, row)| (*key, *row))
            .collect();
        let (changed, mut problem) = (!missing.is_empty(), None);
        for (key, row) in missing {
            match rows.insert(key, row, 0) {
                Ok(()) => {
                    self.0.insert(key, row);
                }
                Err(error) => problem = Some(error),
            }
        }
        problem.map_or(Ok(changed), Err)
    }
}

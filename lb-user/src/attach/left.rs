//! Programs of an instance that the kernel still has.

use aya::programs::loaded_programs;

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its number.
    pub id: u32,
    /// Its name, of which the kernel keeps 15 letters.
    pub name: String,
}

/// All that use a map, by its number. Who is attached nowhere is freed a moment later.
pub fn programs_with(map: u32) -> Vec<Left> {
    let programs = loaded_programs().filter_map(Result::ok);
    let with = programs
        .filter(|program| program.map_ids().is_ok_and(|ids| ids.is_some_and(|ids| ids.contains(&map))));
    with.map(|program| Left { id: program.id(), name: program.name_as_str().unwrap_or_default().to_owned() })
        .collect()
}

//! Any packets, over the rows of a case or over random ones with any bytes changed in them: the decision core
//! does not panic, and what it does is what it counts. Bytes become edits of packets and rows that mean
//! something, because few of all packets do.

#![no_main]

use std::sync::LazyLock;

use lb_common::{
    family::{V4, V6},
    path::Hook,
};
use lb_tests::{
    check,
    family::Net,
    host,
    mutate::source::{Origin, Sources},
    state::{At, DEVICES, State},
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};

static IPV4: LazyLock<Sources<V4>> = LazyLock::new(Sources::new);
static IPV6: LazyLock<Sources<V6>> = LazyLock::new(Sources::new);

/// Packets that one input holds.
const PACKETS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    // What is too short holds fewer packets.
    let _ = match input.arbitrary() {
        Ok(true) => packets(&mut input, &IPV4),
        Ok(false) => packets(&mut input, &IPV6),
        Err(_) => Ok(()),
    };
});

fn packets<F: Net>(input: &mut Unstructured<'_>, sources: &Sources<F>) -> Result<()> {
    let origin = match input.arbitrary()? {
        true => sources.cases()[input.choose_index(sources.cases().len())?].clone(),
        false => Origin::Random(input.arbitrary::<u16>()?.into()),
    };
    let source = sources.source(&origin).expect("an origin of these sources");
    let mut state = source.state;
    for _ in 0..input.int_in_range(0..=3)? {
        damage(input, &mut state)?;
    }
    let settings = source.settings[input.choose_index(source.settings.len())?].1;
    for _ in 0..PACKETS {
        let (mut at, mut bytes) = source.packets[input.choose_index(source.packets.len())?].clone();
        if input.arbitrary()? {
            let hook = Hook::ALL[input.choose_index(Hook::ALL.len())?];
            at = At { settings, hook, ifindex: *input.choose(&DEVICES)?, tagged: false, segment: 0 };
        }
        edit(input, &mut bytes)?;
        if let Err(error) = check::is_sane(&state, at, &bytes) {
            panic!("{origin}, {:?} of device {}: {error:#}", at.hook, at.ifindex);
        }
        state.learned = host::run(&state, at, &bytes).1.learned;
    }
    Ok(())
}

/// Changes a packet: its end, bytes of it, or all of it.
fn edit(input: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    match input.int_in_range(0..=7u8)? {
        0 => bytes.truncate(input.choose_index(bytes.len() + 1)?),
        1 => bytes.extend(input.bytes(input.len().min(40))?),
        2 => *bytes = input.bytes(input.len().min(200))?.to_vec(),
        3 => {
            let at = input.choose_index(bytes.len() + 1)?;
            let more = input.bytes(input.len().min(8))?.to_vec();
            bytes.splice(at..at, more);
        }
        edits => {
            for _ in 4..edits {
                let at = input.choose_index(bytes.len().max(1))?;
                let value = input.arbitrary()?;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
    Ok(())
}

/// Changes a byte of a row.
fn damage<F: Net>(input: &mut Unstructured<'_>, state: &mut State<F>) -> Result<()> {
    fn row<'a, T: bytemuck::Pod + 'a>(
        input: &mut Unstructured<'_>,
        rows: impl Iterator<Item = &'a mut T>,
    ) -> Result<()> {
        let mut rows: Vec<&mut T> = rows.collect();
        let (which, at) = (input.choose_index(rows.len().max(1))?, input.choose_index(size_of::<T>())?);
        let value = input.arbitrary()?;
        if let Some(row) = rows.get_mut(which) {
            bytemuck::bytes_of_mut(*row)[at] = value;
        }
        Ok(())
    }
    match input.int_in_range(0..=5u8)? {
        0 => row(input, state.shared.services.values_mut()),
        1 => row(input, state.shared.sets.values_mut()),
        2 => row(input, state.shared.slots.values_mut()),
        3 => row(input, state.shared.next_hops.values_mut()),
        4 => row(input, state.side.backends.values_mut()),
        // Not in an order that is the same each time: a single row is as good.
        _ => row(input, state.learned.flows.values_mut().take(1)),
    }
}

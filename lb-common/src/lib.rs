//! What the kernel programs and user space share: the rows of the maps ([`abi`]), packet headers
//! ([`wire`]) and the decision core ([`path`]). It knows nothing of aya, of maps or of sockets.
#![no_std]

pub mod abi;
pub mod family;
pub mod path;
pub mod wire;

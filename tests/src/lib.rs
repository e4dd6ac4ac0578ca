//! Packet cases: what each packet gets, written once as data ([`case`], [`cases`]), run by the decision
//! core on the host ([`host`]) and by the kernel programs through `BPF_PROG_TEST_RUN` ([`kernel`]). Golden
//! scripts: what the agent makes of each version of a config ([`golden`]). What a packet costs in the
//! kernel ([`cost`]), and at the uplink ([`live`]). Millions of mutated packets, on both ([`mutate`]).

pub mod case;
pub mod cases;
pub mod check;
pub mod cost;
pub mod family;
pub mod golden;
pub mod host;
pub mod kernel;
pub mod live;
pub mod mutate;
pub mod node;
pub mod object;
pub mod packet;
pub mod random;
pub mod state;
pub mod verifier;
pub mod wait;
pub mod world;

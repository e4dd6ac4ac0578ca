//! Outcomes of packets, counted: why their path stops before they are translated ([`Stop`]), and what else happens to
//! them ([`Event`]). Each has a row of its own in the map of counters.

/// The list of the stops, handed to a macro: all that there is to each of them is made from it. Name, row of its
/// counter, [`Ending`], label; by what becomes of the packet. No row is ever another one's.
#[macro_export]
macro_rules! stops {
    ($with:ident!($($arguments:tt)*)) => {
        $with! {
            $($arguments)*
            /// A client called a backend by its own address; passed on.
            Direct = 7, Pass, "direct-call";
            /// Neither source nor destination is ours.
            NotOurs = 11, Pass, "not-ours";
            /// Shorter than its headers say.
            Truncated = 12, Pass, "truncated";
            /// A header that contradicts itself.
            Malformed = 13, Pass, "malformed";
            /// A fragment of a packet whose first one is not known, to an address that may be anybody's; passed on.
            Fragment = 14, Pass, "fragment";
            /// IPv6 extension headers: too many, or such that what follows can't be told; passed on.
            Options = 16, Pass, "ip-options";
            /// A protocol that is not balanced; passed on.
            Protocol = 17, Pass, "protocol";
            /// Looked like ours, but there is no such frontend and no such flow.
            NoFrontend = 18, Pass, "no-frontend";
            /// Traffic of a known address at a hook where it is not translated; passed on.
            WrongHook = 30, Pass, "wrong-hook";
            /// Stack mode: translated later, at the client's port; passed on.
            LeftToStack = 31, Pass, "left-to-stack";
            /// A reset of a connection to a backend that nobody has made: an answer has come to its client with the
            /// backend's address, because the row of replies was lost; dropped, so that the flow goes on.
            StrayReset = 8, Drop, "stray-reset";
            /// In the name of an address that is known at another port; dropped.
            SpoofedSource = 9, Drop, "spoofed-source";
            /// A fragment to the address of a service before the packet's first one, or long after; dropped.
            FragmentLost = 15, Drop, "fragment-without-first";
            /// The policy is Local, and the service's usable backends are on other nodes; dropped.
            NoLocalBackend = 21, Drop, "no-local-backend";
            /// The client is in none of the service's source ranges; dropped.
            SourceRange = 22, Drop, "source-not-allowed";
            /// An address of `serviceCIDRs` that no service has; dropped.
            UnassignedVip = 23, Drop, "unassigned-vip";
            /// Rows of the service are being replaced under the packet; dropped, the client tries again.
            Unsettled = 24, Drop, "service-changing";
            /// No way to the backend is known; dropped.
            Unreachable = 25, Drop, "backend-unreachable";
            /// The flow could not be recorded; dropped.
            TableFull = 27, Drop, "flow-table-full";
            /// Every backend tried has a live flow with this client's address and port; dropped.
            Clash = 28, Drop, "tuple-clash";
            /// Every port of the node's that was tried for a flow to another node is another flow's; dropped.
            NoSnatPort = 29, Drop, "snat-ports-used-up";
            /// The kernel refused to change the packet; dropped.
            RewriteFailed = 34, Drop, "rewrite-failed";
            /// The service has no usable backend; rejected.
            NoBackend = 19, Reject, "no-backend";
            /// The address is a service's, the port is not; rejected.
            NoPort = 20, Reject, "no-port";
            /// TCP: the flow's backend was removed or is not ready, and it has gone or its service wants that; reset.
            BackendGone = 26, Reject, "backend-gone";
            /// TTL or hop limit would reach zero; answered so.
            TtlExceeded = 32, Reject, "ttl-exceeded";
            /// Larger than the device that it would leave by takes; answered so.
            TooBig = 33, Reject, "too-big";
        }
    };
}

/// Adds the list of the events: name, row of its counter, label.
macro_rules! with_events {
    ($($stops:tt)*) => {
        define! {
            stops { $($stops)* }
            events {
                /// A request went on to its backend.
                Request = 0, "request";
                /// A reply went back to its client.
                Reply = 1, "reply";
                /// A packet from outside went to the node of its backend, inside another (DSR).
                Encapsulated = 2, "encapsulated";
                /// A packet came inside another from a node that has balanced it (DSR), and was taken out.
                Decapsulated = 3, "decapsulated";
                /// A new flow was recorded.
                NewFlow = 4, "new-flow";
                /// A client has shown that it hears its backend: its flow is safe from floods of new ones.
                Assured = 5, "flow-assured";
                /// A flow's client is at another port of its bridge now.
                Moved = 6, "flow-moved";
                /// A row of a flow was gone and was made again from its reverse row.
                Rebuilt = 10, "flow-rebuilt";
                /// Somebody asked on a bridge who has the address of a service; answered.
                Answered = 35, "neighbour-answered";
                /// An ICMP error about a packet of a flow went to whom it is for.
                Error = 36, "icmp-error";
                /// An ICMP echo request to an address of a service; answered.
                Echoed = 37, "echo-answered";
                /// A socket of the host was connected to a backend.
                SocketConnected = 38, "socket-connected";
                /// A datagram of a socket of the host that is not connected went to its backend.
                SocketSent = 39, "socket-sent";
                /// A datagram of such a socket went to another backend than before, which no longer serves.
                SocketMoved = 40, "socket-moved";
            }
        }
    };
}

/// What becomes of a packet that stops.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Left to the next program as it came.
    Pass,
    /// Dropped.
    Drop,
    /// Answered with a refusal.
    Reject,
}

macro_rules! define {
    (
        stops { $($(#[doc = $stop_doc:literal])+ $stop:ident = $stop_row:literal, $ending:ident, $stop_label:literal;)* }
        events { $($(#[doc = $event_doc:literal])+ $event:ident = $event_row:literal, $event_label:literal;)* }
    ) => {
        /// Why the path of a packet stops before it is translated.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Stop {
            $($(#[doc = $stop_doc])+ $stop = $stop_row,)*
        }

        /// What happens to a packet, or to a call of a socket, and is no reason to stop.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Event {
            $($(#[doc = $event_doc])+ $event = $event_row,)*
        }

        /// One counter per outcome; the index into the map of counters.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $stop_doc])+ $stop = $stop_row,)*
            $($(#[doc = $event_doc])+ $event = $event_row,)*
        }

        impl Stop {
            /// All of them.
            pub const ALL: &[Stop] = &[$(Stop::$stop,)*];

            /// What becomes of the packet.
            #[inline(always)]
            pub fn ending(self) -> Ending {
                match self { $(Stop::$stop => Ending::$ending,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                Counter::from(self).meaning()
            }

            /// The one with that row.
            #[inline(always)]
            pub fn of(row: u32) -> Option<Stop> {
                match row { $($stop_row => Some(Stop::$stop),)* _ => None }
            }
        }

        impl Counter {
            /// How many there are.
            pub const COUNT: u32 = Counter::ALL.len() as u32;

            /// Every counter, in the order of the map.
            pub const ALL: &[Counter] = &{
                let listed = [$(Counter::$stop,)* $(Counter::$event,)*];
                // No two have one row, or there would be no such enum: each row is written.
                let (mut rows, mut next) = (listed, 0);
                while next < listed.len() {
                    rows[listed[next] as usize] = listed[next];
                    next += 1;
                }
                rows
            };

            /// The name people see.
            pub fn label(self) -> &'static str {
                match self {
                    $(Counter::$stop => $stop_label,)*
                    $(Counter::$event => $event_label,)*
                }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Counter::$stop => concat!($($stop_doc),+).trim_ascii(),)*
                    $(Counter::$event => concat!($($event_doc),+).trim_ascii(),)*
                }
            }

            /// The stop that it counts, if it is one's.
            pub fn stop(self) -> Option<Stop> {
                Stop::of(self as u32)
            }
        }

        impl From<Stop> for Counter {
            #[inline(always)]
            fn from(stop: Stop) -> Counter {
                match stop { $(Stop::$stop => Counter::$stop,)* }
            }
        }

        impl From<Event> for Counter {
            #[inline(always)]
            fn from(event: Event) -> Counter {
                match event { $(Event::$event => Counter::$event,)* }
            }
        }
    };
}
stops!(with_events!());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_row_and_a_name_of_its_own() {
        for (row, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, row);
            let label = counter.label();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{label}");
            let namesakes = Counter::ALL.iter().filter(|other| other.label() == label);
            assert_eq!(namesakes.count(), 1, "{label}");
        }
    }

    #[test]
    fn every_stop_has_a_counter_and_every_counter_a_meaning() {
        for stop in Stop::ALL {
            assert_eq!(Counter::from(*stop).stop(), Some(*stop));
        }
        for counter in Counter::ALL {
            assert!(counter.meaning().ends_with(['.', ')']), "{counter:?}: {}", counter.meaning());
        }
        assert_eq!(Counter::ALL.iter().filter_map(|counter| counter.stop()).count(), Stop::ALL.len());
    }

    /// Pinned counters outlive the agent that made them: those of the version before keep their rows.
    #[test]
    fn rows_stay() {
        let rows =
            ["request", "reply", "encapsulated", "decapsulated", "new-flow", "flow-assured", "flow-moved"];
        assert!(Counter::ALL.iter().zip(rows).all(|(counter, label)| counter.label() == label));
        assert_eq!((Stop::RewriteFailed as u32, Event::SocketMoved as u32), (34, 40));
    }
}

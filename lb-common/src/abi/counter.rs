//! Outcomes of packets, counted.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)*) => {
        /// One counter per outcome; the index into the map of counters.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &[Counter] = &[$(Counter::$name,)*];

            /// The one with that index; what is none is the first.
            pub fn of(index: u32) -> Counter {
                match index { $(index if index == Counter::$name as u32 => Counter::$name,)* _ => Counter::ALL[0] }
            }

            /// The name people see.
            pub fn label(self) -> &'static str {
                match self { $(Counter::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// A request went on to its backend.
    Request = "request",
    /// A reply went back to its client.
    Reply = "reply",
    /// A packet from outside went to the node of its backend, inside another (DSR).
    Tunneled = "tunneled",
    /// A packet came inside another from a node that has balanced it (DSR), and was taken out.
    Unwrapped = "unwrapped",
    /// A new flow was recorded.
    NewFlow = "new-flow",
    /// A client has shown that it hears its backend: its flow is safe from floods of new ones.
    Proven = "flow-proven",
    /// A flow's client is at another port of its bridge now.
    Moved = "flow-moved",
    /// A client called a backend by its own address; passed on.
    Direct = "direct-call",
    /// A reset of a connection to a backend that nobody has made: an answer has come to its client with the
    /// backend's address, because the row of replies was lost; dropped, so that the flow goes on.
    StrayReset = "stray-reset",
    /// In the name of an address that is at home at another port; dropped.
    Forged = "forged-source",
    /// A row of a flow was gone and was made again from its twin.
    Rebuilt = "flow-rebuilt",
    /// Neither source nor destination is ours.
    NotOurs = "not-ours",
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// A header that contradicts itself.
    Malformed = "malformed",
    /// A fragment of a packet whose first one is not known, to an address that may be anybody's; passed on.
    Fragment = "fragment",
    /// A fragment to the address of a service before the packet's first one, or long after; dropped.
    FragmentLost = "fragment-without-first",
    /// IPv6 extension headers: too many, or such that what follows can't be told; passed on.
    Options = "ip-options",
    /// A protocol that is not balanced; passed on.
    Protocol = "protocol",
    /// Looked like ours, but there is no such frontend and no such flow.
    NoFrontend = "no-frontend",
    /// The service has no usable backend; rejected.
    NoBackend = "no-backend",
    /// The address is a service's, the port is not; rejected.
    NoPort = "no-port",
    /// The policy is Local, and the service's usable backends are on other nodes; dropped.
    NoLocalBackend = "no-local-backend",
    /// The client is in none of the service's source ranges; dropped.
    SourceRange = "source-not-allowed",
    /// An address of `serviceCIDRs` that no service has; dropped.
    Unowned = "unowned-address",
    /// Rows of the service are being replaced under the packet; dropped, the client tries again.
    Unsettled = "service-changing",
    /// No way to the backend is known; dropped.
    Unreachable = "backend-unreachable",
    /// TCP: the flow's backend was removed or is not ready, and it has gone or its service wants that; reset.
    BackendGone = "backend-gone",
    /// The flow could not be recorded; dropped.
    TableFull = "flow-table-full",
    /// Every backend tried has a live flow with this client's address and port; dropped.
    Clash = "tuple-clash",
    /// Every port of the node's that was tried for a flow to another node is another flow's; dropped.
    NoSnatPort = "snat-ports-used-up",
    /// Traffic of a known address at a hook where it is not translated; passed on.
    WrongHook = "wrong-hook",
    /// Stack mode: translated later, at the client's port; passed on.
    LeftToStack = "left-to-stack",
    /// TTL or hop limit would reach zero; answered so.
    TtlExceeded = "ttl-exceeded",
    /// Larger than the device that it would leave by takes; answered so.
    TooBig = "too-big",
    /// The kernel refused to change the packet; dropped.
    RewriteFailed = "rewrite-failed",
    /// Somebody asked on a bridge who has the address of a service; answered.
    Answered = "neighbour-answered",
    /// An ICMP error about a packet of a flow went to whom it is for.
    Error = "icmp-error",
    /// An ICMP echo request to an address of a service; answered.
    Echoed = "echo-answered",
    /// A socket of the host was connected to a backend.
    SocketConnected = "socket-connected",
    /// A datagram of a socket of the host that is not connected went to its backend.
    SocketSent = "socket-sent",
    /// As before, but the socket's backend no longer serves: it has another one from this datagram on.
    SocketMoved = "socket-moved",
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = Counter::ALL.len() as u32;
}

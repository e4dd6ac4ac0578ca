//! Fragments, as both families see them (RFC 791, section 3.2; RFC 8200, section 4.5).

/// Which part of its packet a fragment is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum FragmentKind {
    /// All of it.
    #[default]
    Whole,
    /// The one with the transport header.
    First,
    /// One without.
    Later,
}

/// What a packet says of its being a fragment. A whole one by default.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// What all fragments of a packet have in common, as it lies there.
    pub id: u32,
    /// Where it belongs, in bytes.
    pub offset: u16,
    /// Others belong behind it.
    pub more: bool,
    /// How many bytes of the packet it carries.
    pub length: u32,
}

impl Fragment {
    /// Which part it is. A lone first one that is the last, too, is a whole packet (RFC 6946).
    #[inline(always)]
    pub fn fragment(&self) -> FragmentKind {
        match (self.offset, self.more) {
            (0, false) => FragmentKind::Whole,
            (0, true) => FragmentKind::First,
            _ => FragmentKind::Later,
        }
    }
}

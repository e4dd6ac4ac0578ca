//! Any text as a config: read, given addresses, compiled, planned and carried out in memory, as every version
//! of a golden script is. A text may be refused; nothing panics, no lookup leads astray, and a second pass has
//! nothing to do.

#![no_main]

use lb_tests::golden;
use lb_user::{model::addresses::AddressError, plan::Full};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    if let Err(error) = golden::run("fuzz.yaml", text) {
        let full = error.chain().any(|cause| cause.is::<AddressError>() || cause.is::<Full>());
        assert!(full, "{error:#}");
    }
    Corpus::Keep
});

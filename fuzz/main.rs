//! The fuzzer: libFuzzer around one target of `coronet_tools::fuzz`, named in
//! `CORONET_FUZZ_TARGET`. See `run.sh`.
#![no_main]

use std::sync::OnceLock;

use coronet_tools::fuzz::{Target, targets};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let wanted = std::env::var("CORONET_FUZZ_TARGET").unwrap_or_default();
        let known = targets();
        match known.iter().find(|(name, _)| *name == wanted) {
            Some((_, target)) => *target,
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                eprintln!("CORONET_FUZZ_TARGET must be one of {}", names.join(", "));
                std::process::exit(2);
            }
        }
    });
    target(bytes);
});

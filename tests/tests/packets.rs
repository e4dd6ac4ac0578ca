//! Every packet case, on the host and in the kernel.

use std::sync::{Arc, Mutex};

use lb_common::family::{V4, V6};
use lb_tests::{
    cases, check,
    family::Net,
    kernel::{self, Kernel},
};
use libtest_mimic::{Arguments, Failed, Trial};

/// The programs, shared by the tests; or why there are none.
type Shared = Arc<Mutex<Result<Kernel, String>>>;

fn main() {
    let arguments = Arguments::from_args();
    // Before any thread is started: they all inherit it.
    let kernel = kernel::enter_namespace().and_then(|()| Kernel::new());
    let kernel: Shared = Arc::new(Mutex::new(kernel.map_err(|error| format!("{error:#}"))));
    let mut trials = Vec::new();
    of_family::<V4>(&kernel, &mut trials);
    of_family::<V6>(&kernel, &mut trials);
    libtest_mimic::run(&arguments, trials).exit();
}

fn of_family<F: Net + Send + Sync>(kernel: &Shared, trials: &mut Vec<Trial>)
where
    F::Addr: Send + Sync,
{
    for case in cases::all::<F>() {
        let name = format!("{}/{}", F::NAME, case.name);
        let on_host = case.clone();
        trials.push(Trial::test(format!("host/{name}"), move || check::on_host(&on_host).map_err(failed)));
        let kernel = kernel.clone();
        trials.push(Trial::test(format!("kernel/{name}"), move || {
            with(&kernel, |kernel| check::in_kernel(&case, kernel))
        }));
    }
}

fn with(kernel: &Shared, test: impl FnOnce(&mut Kernel) -> anyhow::Result<()>) -> Result<(), Failed> {
    // A test that panicked has left nothing behind: each run sets up its own rows.
    let mut kernel = kernel.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match kernel.as_mut() {
        Ok(kernel) => test(kernel).map_err(failed),
        Err(why) => Err(why.clone().into()),
    }
}

fn failed(error: anyhow::Error) -> Failed {
    error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join("\n").into()
}

//! Every packet case, on the host and in the kernel.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    sync::{Arc, Mutex},
};

use anyhow::{Context, anyhow, bail, ensure};
use lb_common::{
    abi::Counter,
    family::{V4, V6},
};
use lb_tests::{
    cases, check,
    family::Net,
    host,
    kernel::{self, Kernel},
    mutate::{self, corpus, history::Failure, source::Sources},
    random,
};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

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
    let name = format!("{}/random rows and packets", F::NAME);
    trials.push(Trial::test(format!("host/{name}"), || at_random::<F>(None).map_err(failed)));
    let shared = kernel.clone();
    trials.push(Trial::test(format!("kernel/{name}"), move || {
        with(&shared, |kernel| at_random::<F>(Some(kernel)))
    }));
    let shared = kernel.clone();
    trials.push(Trial::test(format!("kernel/{}/mutated packets", F::NAME), move || {
        with(&shared, mutated::<F>)
    }));
    for (name, text) in corpus::files().expect("the corpus is a part of the sources") {
        if corpus::is_of::<F>(&text) {
            let shared = kernel.clone();
            let replay = move |kernel: &mut Kernel| {
                let played = corpus::read::<F>(&text)?.run_slowly(&Sources::new(), kernel)?;
                played.map(drop).map_err(|Failure(what)| anyhow!(what))
            };
            let name = format!("kernel/{}/corpus/{name}", F::NAME);
            trials.push(Trial::test(name, move || with(&shared, replay)));
        }
    }
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

/// Random rows and packets: nothing panics, what is left alone is left as it was, and the kernel gives
/// what the host gives. `LB_SEED` (a number) chooses others than every run's.
fn at_random<F: Net>(kernel: Option<&mut Kernel>) -> anyhow::Result<()> {
    let kernel = RefCell::new(kernel);
    let seed = seed()?;
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let seen = RefCell::new(BTreeMap::<u32, u64>::new());
    let result = TestRunner::new_with_rng(config, rng).run(&random::scenario(), |scenario| {
        let (state, at, (packet, summed)) = (scenario.state::<F>(), scenario.at(), scenario.packet::<F>());
        for (counter, count) in host::run(&state, at, &packet).1.counters {
            *seen.borrow_mut().entry(counter).or_default() += count;
        }
        let checked = match kernel.borrow_mut().as_deref_mut() {
            Some(kernel) => check::agrees(kernel, &state, at, &packet, summed),
            None => check::is_sane(&state, at, &packet),
        };
        checked.map_err(|error| TestCaseError::fail(lines(&error)))
    });
    result.map_err(|error| anyhow!("with LB_SEED={seed}: {error}"))?;
    let seen = seen.into_inner();
    // Else the pools are such that hardly a packet is translated, and nothing is shown.
    let common = [
        Counter::Request,
        Counter::Reply,
        Counter::NewFlow,
        Counter::Rebuilt,
        Counter::Unreachable,
        Counter::Error,
    ];
    let rare = common.iter().find(|counter| seen.get(&(**counter as u32)).is_none_or(|count| *count < 10));
    ensure!(rare.is_none(), "with LB_SEED={seed}, hardly a packet got {rare:?}: {seen:?}");
    Ok(())
}

/// Mutated packets in each run of the tests; `cargo xtask fuzz` takes others, and more.
const MUTATED: u64 = 20_000;

/// The kernel gives mutated packets what the host gives, and enough of them are still somebody's.
fn mutated<F: Net>(kernel: &mut Kernel) -> anyhow::Result<()> {
    let tally = mutate::run::<F>(kernel, seed()?, |packets| packets < MUTATED)?;
    if let Some((file, what)) = tally.failures.first() {
        bail!(
            "{what}
keep this as a file of tests/corpus:
{file}"
        );
    }
    for counter in [Counter::Request, Counter::Reply, Counter::NewFlow, Counter::Malformed, Counter::Fragment]
    {
        let count = tally.counted(counter);
        ensure!(count >= 50, "of {} packets, {count} got {counter:?}: they show nothing", tally.packets);
    }
    Ok(())
}

/// `LB_SEED` (a number) chooses other packets than every run's.
fn seed() -> anyhow::Result<u64> {
    match env::var("LB_SEED") {
        Ok(text) => text.parse().with_context(|| format!("LB_SEED is no number: {text}")),
        Err(_) => Ok(1),
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

fn lines(error: &anyhow::Error) -> String {
    error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join("\n")
}

fn failed(error: anyhow::Error) -> Failed {
    lines(&error).into()
}

//! Golden scripts: `tests/golden/NAME.yaml` must come to `tests/golden/NAME.txt`.
//! `LB_UPDATE_GOLDEN=1` writes what it comes to.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lb_tests::golden::{difference, run};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let entries = fs::read_dir(&directory).expect("the directory of the scripts");
    let mut scripts: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    scripts.sort();
    assert!(!scripts.is_empty(), "{} has no scripts", directory.display());
    let trials = scripts.into_iter().map(|script| {
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Trial::test(name, move || check(&script))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn check(script: &Path) -> Result<(), Failed> {
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    let found = run(&name, &fs::read_to_string(script)?).map_err(|error| format!("{error:#}"))?;
    let golden = script.with_extension("txt");
    if env::var_os("LB_UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        return Ok(fs::write(golden, found)?);
    }
    let expected = fs::read_to_string(&golden)
        .map_err(|error| format!("{}: {error}; write it with LB_UPDATE_GOLDEN=1", golden.display()))?;
    if expected == found {
        return Ok(());
    }
    let lines = difference(&expected, &found);
    Err(format!("{} expects (-) something else (+):\n{lines}", golden.display()).into())
}

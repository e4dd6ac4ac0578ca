//! `lb check`.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use serde::Serialize;

use super::output::{Format, print};
use crate::sources::file;

#[derive(Serialize)]
struct Report {
    valid: bool,
    services: usize,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Says whether a config is valid, and everything that is wrong with it.
pub fn check(config: &Path, format: Format) -> Result<ExitCode> {
    let report = match file::load(config) {
        Ok(loaded) => Report {
            valid: true,
            services: loaded.model.services.len(),
            errors: Vec::new(),
            warnings: loaded.problems.iter().map(ToString::to_string).collect(),
        },
        Err(error) => Report {
            valid: false,
            services: 0,
            errors: error.problems.iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
        },
    };
    print(format, &report, || {
        let errors = report.errors.iter().map(|line| format!("error: {line}\n"));
        let warnings = report.warnings.iter().map(|line| format!("warning: {line}\n"));
        let verdict = match (report.valid, report.services) {
            (true, services) => format!("{} is valid: {services} services\n", config.display()),
            (false, _) => format!("{} is not valid\n", config.display()),
        };
        errors.chain(warnings).chain([verdict]).collect()
    })?;
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

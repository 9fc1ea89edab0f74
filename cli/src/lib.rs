//! The user's side of Bifold: command line, configuration, HTTP client, shell, demo, and the
//! [`platform::Platform`] that runs all roles in one process.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod arguments;
pub mod client;
pub mod commands;
pub mod config;
pub mod demo;
pub mod exit;
pub mod generator;
pub mod output;
pub mod platform;
pub mod progress;
pub mod shell;

use std::process::ExitCode;

use clap::Parser;

/// Runs one command line and says how it ended; the whole of `main`.
pub fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error)),
    };
    match runtime.block_on(commands::dispatch(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

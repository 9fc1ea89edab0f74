//! `completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::output::text;

pub(super) fn print(shell: Shell) -> anyhow::Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Arguments::command(), "bifold", &mut script);
    text(&String::from_utf8_lossy(&script))
}

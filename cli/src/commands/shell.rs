//! `remuda completions` and `remuda man`: made from the commands and options that there are, so that they lack none.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};

use crate::args::Args;
use crate::args::shell::{CompletionsArgs, ManArgs};
use crate::failure::{Failure, Outcome};

pub(super) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "remuda", &mut text);
    super::unless_nobody_reads(print(&text))
}

pub(super) fn man(args: &ManArgs) -> Outcome {
    let Some(dir) = &args.dir else { return super::unless_nobody_reads(print(&page(&tree())?)) };
    let written = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        write_all(&tree(), dir)
    };
    written().map_err(|error| {
        Failure::new(anyhow::Error::new(error).context(format!("cannot write to `{}`", dir.display())))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// All commands, each with its whole name, as its page is called: `remuda-cluster-start`.
fn tree() -> Command {
    fn named(command: Command, name: &str) -> Command {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        let command = names
            .iter()
            .filter(|sub| *sub != "help")
            .fold(command, |command, sub| command.mut_subcommand(sub, |inner| named(inner, &format!("{name}-{sub}"))));
        command.display_name(name.to_owned())
    }
    let mut all = Args::command().disable_help_subcommand(true);
    all.build();
    named(all, "remuda")
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(dir.join(format!("{name}.1")), page(command)?)?;
    command.get_subcommands().filter(|sub| sub.get_name() != "help").try_for_each(|sub| write_all(sub, dir))
}

fn print(text: &[u8]) -> Outcome {
    io::stdout().lock().write_all(text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use clap_complete::Shell;

    /// The names of all commands, as their pages are called.
    fn names(command: &Command, prefix: &str) -> Vec<String> {
        let subs = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        let below = subs.flat_map(|sub| names(sub, &format!("{prefix}-{}", sub.get_name())));
        [prefix.to_owned()].into_iter().chain(below).collect()
    }

    #[test]
    fn there_is_a_page_for_each_command_and_the_main_one_names_those_below() {
        let folder = tempfile::tempdir().unwrap();
        write_all(&tree(), folder.path()).unwrap();
        let all = names(&Args::command(), "remuda");
        assert!(all.len() > 30 && all.contains(&"remuda-cluster-start".to_owned()), "{all:?}");
        for name in &all {
            let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
            // In roff a dash is escaped.
            assert!(page.contains(&name.replace('-', "\\-")), "{name}\n{page}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), all.len());
        let main = String::from_utf8(page(&tree()).unwrap()).unwrap();
        for sub in Args::command().get_subcommands() {
            assert!(main.contains(&format!("remuda\\-{}", sub.get_name())), "{}", sub.get_name());
        }
    }

    #[test]
    fn each_shell_completes_each_command() {
        for shell in Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "remuda", &mut text);
            let text = String::from_utf8(text).unwrap();
            for name in names(&Args::command(), "remuda") {
                let last = name.rsplit('-').next().unwrap();
                assert!(text.contains(last), "{shell}: {name}");
            }
        }
    }
}

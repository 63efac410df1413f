//! The profiles that are shipped: texts of a `remuda.toml`, built into the program.

/// A shipped profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its `remuda.toml`, which begins with a comment that says what it is for.
    pub(crate) text: &'static str,
}

/// Reads the file of that name at build time.
macro_rules! template {
    ($name:literal) => {
        Template { name: $name, text: include_str!(concat!("../../../profiles/", $name, ".toml")) }
    };
}

/// All of them, the plainest first.
pub(crate) const TEMPLATES: [Template; 7] = [
    template!("default"),
    template!("durable"),
    template!("throughput"),
    template!("many-engines"),
    template!("ssh"),
    template!("slurm"),
    template!("notebook"),
];

impl Template {
    /// The template of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// What it is for: the first clause of its first line.
    pub(crate) fn summary(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default().trim_start_matches("# ");
        first.split_once(": ").map_or(first, |(summary, _)| summary).trim_end_matches('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Program};
    use crate::failure::Failure;
    use std::fs;
    use std::path::Path;

    fn problems(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("remuda.toml"), text).unwrap();
        let mut all = Layers::problems_for_others(Program::Controller, folder.path());
        all.extend(Layers::problems_for_others(Program::Engine, folder.path()));
        all.iter().map(Failure::text).collect()
    }

    /// What is commented out is there to be used.
    fn uncommented(text: &str) -> String {
        let setting = |line: &&str| {
            let name = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
            name.is_some_and(|name| !name.contains(' '))
        };
        text.lines().map(|line| if setting(&line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_is_right_also_with_all_that_is_commented_out() {
        for template in TEMPLATES {
            assert_eq!(problems(template.text), [""; 0], "{}", template.name);
            assert_eq!(problems(&uncommented(template.text)), [""; 0], "{}", template.name);
        }
    }

    #[test]
    fn what_the_default_one_comments_out_is_the_default() {
        let text = uncommented(TEMPLATES[0].text);
        let tables: toml::Table = text.parse().unwrap();
        assert!(TEMPLATES[0].text.parse::<toml::Table>().unwrap()["controller"].as_table().unwrap().is_empty());
        for (program, path) in [(Program::Controller, "controller"), (Program::Engine, "engine")] {
            let command = crate::config::command(&[path]);
            for (option, value) in tables[program.command()].as_table().unwrap() {
                let argument = command.get_arguments().find(|one| one.get_long() == Some(option)).unwrap();
                let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
                // Where the default is made when the command runs, its help names it.
                let help = argument.get_help().unwrap().to_string();
                let value = match value {
                    toml::Value::String(text) => text.clone(),
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(switch) => switch.to_string(),
                    other => panic!("{other:?}"),
                };
                let is_default = default.as_ref() == Some(&value) || help.contains(&format!("[default: {value}]"));
                assert!(is_default || option == "slots", "{option} = {value}, by default {default:?}");
            }
        }
    }

    #[test]
    fn the_table_of_the_documentation_and_the_folder_have_these_and_no_others() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles");
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        for template in TEMPLATES {
            assert!(readme.contains(&format!("| [{0}]({0}.toml) |", template.name)), "{}", template.name);
            assert!(template.summary().len() > 10 && template.summary().len() < 90, "{}", template.summary());
        }
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(
            files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).count(),
            TEMPLATES.len()
        );
    }
}

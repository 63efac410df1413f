//! Scripts of jobs: a template with names in braces, and what stands for them.

use super::System;
use crate::launch::quote::{line, quoted};

/// What a job is to run, and what it asks its system for. Texts that are empty ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSpec {
    /// The job's name, in the listings of the system.
    pub name: String,
    /// How many engines each job has, or each element of an array.
    pub engines: u32,
    /// How many elements the array has; 0: it is no array.
    pub elements: u32,
    /// What each runs: the program and its arguments up to the tag.
    pub program: Vec<String>,
    /// Given to the program as `--tag=TAG`; in an array as `--tag=TAG-<element>`, with the element as [`System::first_element`]
    /// counts. Empty: it is not given.
    pub tag: String,
    /// The arguments after the tag.
    pub arguments: Vec<String>,
    /// The queue; with Slurm the partition.
    pub queue: String,
    /// Whom it is accounted to; with LSF and Grid Engine the project or account as these have it.
    pub account: String,
    /// The quality of service, where the system has that.
    pub qos: String,
    /// How long it may run, in the system's own form.
    pub time: String,
    /// More options for the system, as in a directive of its scripts. Each line is a directive of its own.
    pub options: String,
    /// The path of the file for what it prints, without ending: see [`System::output_file`].
    pub output: String,
    /// The profile's folder.
    pub profile_dir: String,
    /// The cluster's id.
    pub cluster_id: String,
}

/// The names that a template may use, and those that ipyparallel's templates have for the same.
const NAMES: [(&str, &[&str]); 16] = [
    ("n", &[]),
    ("elements", &[]),
    ("array", &[]),
    ("name", &[]),
    ("queue", &[]),
    ("account", &[]),
    ("qos", &[]),
    ("time", &["timelimit"]),
    ("options", &[]),
    ("output", &["output_file"]),
    ("command", &["program_and_args"]),
    ("program", &[]),
    ("arguments", &["program_args"]),
    ("tag", &[]),
    ("profile_dir", &[]),
    ("cluster_id", &[]),
];

/// A template of which no script can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It uses a name that there is not.
    #[error(
        "line {line} of the template: there is no `{{{name}}}`; there are {known}. A brace of its own is written twice: `{{{{`"
    )]
    Unknown {
        /// Which line, from 1.
        line: usize,
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// A brace has no partner.
    #[error(
        "line {line} of the template: a `{brace}` without its partner. A brace of its own is written twice: `{brace}{brace}`"
    )]
    Brace {
        /// Which line, from 1.
        line: usize,
        /// Which brace.
        brace: char,
    },
    /// A value cannot stand in a directive.
    #[error(
        "`{value}` cannot be the {name} of a job: spaces, quotes and line ends cannot stand in a directive of {system}"
    )]
    Value {
        /// Which value.
        name: &'static str,
        /// What it is.
        value: String,
        /// The system's name.
        system: &'static str,
    },
    /// A word of the command cannot be written.
    #[error("a line end in an argument of the program cannot be written for {system}: `{value}`")]
    LineEnd {
        /// The word.
        value: String,
        /// The system's name.
        system: &'static str,
    },
}

/// Makes a script of a template.
///
/// `{name}` stands for a value, and a brace of its own is written twice, as in ipyparallel's templates. A line that names
/// a value which is empty is left out, and one that names options is written once for each line of these.
///
/// # Errors
/// When the template names what there is not, or a value cannot be written for the system.
pub fn render(system: System, template: &str, job: &JobSpec) -> Result<String, TemplateError> {
    let values = Values::new(system, job)?;
    let mut script = String::new();
    for (number, text) in (1..).zip(template.lines()) {
        let pieces = pieces(number, text)?;
        let all: Vec<_> = pieces.iter().map(|piece| piece.text(&values)).collect();
        let is_named = |piece: &&Piece<'_>| matches!(piece, Piece::Named(_));
        if pieces.iter().zip(&all).any(|(piece, text)| is_named(&piece) && text.trim().is_empty()) {
            continue;
        }
        let copies: Vec<&str> = if pieces.contains(&Piece::Named("options")) {
            job.options.lines().filter(|line| !line.trim().is_empty()).collect()
        } else {
            vec![""]
        };
        for copy in copies {
            for (piece, text) in pieces.iter().zip(&all) {
                script.push_str(if *piece == Piece::Named("options") { copy.trim() } else { text });
            }
            script.push('\n');
        }
    }
    Ok(script)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Named(&'static str),
}

impl Piece<'_> {
    fn text<'v>(&'v self, values: &'v Values<'_>) -> &'v str {
        match self {
            Piece::Text(text) => text,
            Piece::Named(name) => values.get(name),
        }
    }
}

fn pieces(line: usize, mut text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    while let Some(at) = text.find(['{', '}']) {
        let (before, rest) = text.split_at(at);
        pieces.push(Piece::Text(before));
        if rest.starts_with("{{") || rest.starts_with("}}") {
            pieces.push(Piece::Text(&rest[..1]));
            text = &rest[2..];
            continue;
        }
        let inner = rest.strip_prefix('{').ok_or(TemplateError::Brace { line, brace: '}' })?;
        let (name, after) = inner.split_once('}').ok_or(TemplateError::Brace { line, brace: '{' })?;
        let known = NAMES.iter().find(|(known, others)| *known == name || others.contains(&name));
        let Some((known, _)) = known else {
            let known = NAMES.map(|(name, _)| format!("`{{{name}}}`")).join(", ");
            return Err(TemplateError::Unknown { line, name: name.to_owned(), known });
        };
        pieces.push(Piece::Named(known));
        text = after;
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

/// What stands for the names.
struct Values<'a> {
    job: &'a JobSpec,
    n: String,
    elements: String,
    array: String,
    name: String,
    output: String,
    program: String,
    arguments: String,
    tag: String,
    command: String,
}

impl<'a> Values<'a> {
    fn new(system: System, job: &'a JobSpec) -> Result<Self, TemplateError> {
        for (name, value) in [
            ("name", &job.name),
            ("queue", &job.queue),
            ("account", &job.account),
            ("quality of service", &job.qos),
            ("limit of time", &job.time),
            ("output", &job.output),
        ] {
            if value.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`')) {
                return Err(TemplateError::Value { name, value: value.clone(), system: system.name() });
            }
        }
        let is_array = job.elements > 0;
        let array = if is_array { format!("1-{}", job.elements) } else { String::new() };
        let words = |words: &[String]| match system {
            System::HtCondor => condor_line(words),
            _ => Ok(line(words)),
        };
        let element = system.element_variable();
        let tag = match (&*job.tag, system) {
            ("", _) => String::new(),
            (tag, System::HtCondor) if is_array => format!("{}-{element}", condor_word(tag)?),
            (tag, System::HtCondor) => condor_word(tag)?,
            (tag, _) if is_array => format!("{}-\"{element}\"", quoted(tag)),
            (tag, _) => quoted(tag),
        };
        let option = if tag.is_empty() { String::new() } else { format!("--tag={tag}") };
        let (program, rest) = (words(&job.program)?, words(&job.arguments)?);
        let join = |parts: &[&str]| parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
        let (first, before) =
            job.program.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
        Ok(Self {
            n: job.engines.to_string(),
            elements: job.elements.max(1).to_string(),
            // LSF has the array in the job's name.
            name: if system == System::Lsf && is_array { format!("{}[{array}]", job.name) } else { job.name.clone() },
            output: if job.output.is_empty() { String::new() } else { system.output_pattern(&job.output, is_array) },
            command: join(&[&program, &option, &rest]),
            arguments: join(&[&words(before)?, &option, &rest]),
            program: words(&[first])?,
            array,
            tag,
            job,
        })
    }

    fn get(&self, name: &str) -> &str {
        match name {
            "n" => &self.n,
            "elements" => &self.elements,
            "array" => &self.array,
            "name" => &self.name,
            "queue" => &self.job.queue,
            "account" => &self.job.account,
            "qos" => &self.job.qos,
            "time" => &self.job.time,
            "options" => &self.job.options,
            "output" => &self.output,
            "command" => &self.command,
            "program" => &self.program,
            "arguments" => &self.arguments,
            "tag" => &self.tag,
            "profile_dir" => &self.job.profile_dir,
            "cluster_id" => &self.job.cluster_id,
            other => panic!("`{other}` is not in the list of names"),
        }
    }
}

fn condor_line(words: &[String]) -> Result<String, TemplateError> {
    Ok(words.iter().map(|word| condor_word(word)).collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// A word of HTCondor's `arguments = "…"` (its "new" syntax): between single quotes where it has spaces, and quotes doubled.
fn condor_word(word: &str) -> Result<String, TemplateError> {
    if word.contains(['\n', '\r']) {
        return Err(TemplateError::LineEnd { value: word.to_owned(), system: System::HtCondor.name() });
    }
    let is_plain = !word.is_empty() && !word.contains([' ', '\t', '\'']);
    let text = word.replace('"', "\"\"").replace('$', "$(DOLLAR)");
    Ok(if is_plain { text } else { format!("'{}'", text.replace('\'', "''")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(elements: u32) -> JobSpec {
        let words = |text: &str| text.split('|').map(str::to_owned).collect();
        JobSpec {
            name: "engines".into(),
            engines: 2,
            elements,
            program: words("remuda|nanny|-n|2"),
            tag: "u1".into(),
            arguments: words("--file=/a b/it's.json|--|$x"),
            output: "/log/job".into(),
            ..JobSpec::default()
        }
    }

    #[test]
    fn lines_for_what_is_not_asked_for_are_left_out_of_each_systems_template() {
        for system in System::ALL {
            let plain = render(system, system.template(), &job(0)).unwrap();
            let mut asks = job(4);
            (asks.queue, asks.account, asks.time) = ("long".into(), "physics".into(), "60".into());
            asks.options = "-x one\n-y two".into();
            let all = render(system, system.template(), &asks).unwrap();
            for word in ["long", "physics", "60", "-x one", "-y two"] {
                assert!(!plain.contains(word), "{plain}");
                let is_there = all.contains(word) || (system == System::HtCondor && word == "long");
                assert!(is_there, "{word}: {all}");
            }
            let count = |script: &str| script.matches("array").count();
            assert!(!plain.contains('{') && count(&plain) == 0, "{plain}");
            assert!(!plain.lines().any(|line| line.trim_end().ends_with(['=', '#'])), "{plain}");
        }
    }

    #[test]
    fn the_command_is_quoted_and_each_element_of_an_array_has_a_tag_of_its_own() {
        let command = |system: System, elements| {
            let script = render(system, "{command}", &job(elements)).unwrap();
            script.trim_end().to_owned()
        };
        let shell = r"remuda nanny -n 2 --tag=u1 '--file=/a b/it'\''s.json' -- '$x'";
        assert_eq!(command(System::Slurm, 0), shell);
        assert_eq!(command(System::Slurm, 3), shell.replace("u1", r#"u1-"${SLURM_ARRAY_TASK_ID}""#));
        let condor = "remuda nanny -n 2 --tag=u1 '--file=/a b/it''s.json' -- $(DOLLAR)x";
        assert_eq!(command(System::HtCondor, 0), condor);
        assert_eq!(command(System::HtCondor, 3), condor.replace("u1", "u1-$(Process)"));
    }

    #[test]
    fn arrays_are_written_as_each_system_has_them() {
        for (system, words) in [
            (System::Slurm, "#SBATCH --array=1-4\n"),
            (System::OpenPbs, "#PBS -J 1-4\n"),
            (System::Torque, "#PBS -t 1-4\n"),
            (System::Sge, "#$ -t 1-4\n"),
            (System::Lsf, "#BSUB -J engines[1-4]\n"),
            (System::HtCondor, "\nqueue 4\n"),
        ] {
            let script = render(system, system.template(), &job(4)).unwrap();
            assert!(script.contains(words), "{script}");
        }
    }

    #[test]
    fn names_and_braces_are_those_of_ipyparallels_templates() {
        let template =
            "#PBS -q {queue}\ncd {profile_dir}; for i in ${{X}}; do {{ {program} {program_args}; }}; done {n}";
        let mut job = job(0);
        job.profile_dir = "/p".into();
        let script = render(System::Torque, template, &job).unwrap();
        let arguments = r"nanny -n 2 --tag=u1 '--file=/a b/it'\''s.json' -- '$x'";
        assert_eq!(script, format!("cd /p; for i in ${{X}}; do {{ remuda {arguments}; }}; done 2\n"));
    }

    #[test]
    fn a_name_that_there_is_not_is_named_with_those_that_there_are() {
        let error = |template: &str| render(System::Slurm, template, &job(0)).unwrap_err().to_string();
        let unknown = error("a\n#SBATCH -p {queu}");
        assert!(unknown.starts_with("line 2 of the template: there is no `{queu}`; there are `{n}`, "), "{unknown}");
        assert!(unknown.ends_with("written twice: `{{`"), "{unknown}");
        assert!(error("f() { x").contains("line 1"));
        assert!(error("x }").contains("`}}`"));
    }

    #[test]
    fn a_value_that_would_end_a_directive_is_refused() {
        for value in ["a b", "a\n#SBATCH --uid=0", "a\"b"] {
            let job = JobSpec { queue: value.into(), ..job(0) };
            let error = render(System::Slurm, System::Slurm.template(), &job).unwrap_err();
            assert!(matches!(error, TemplateError::Value { name: "queue", .. }), "{error}");
        }
    }
}

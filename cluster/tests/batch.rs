//! Batch systems that are not to be had here: stand-ins for their programs, which check what they are given and answer as the
//! manuals say. `tests/slurm.rs` is on the real thing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remuda_cluster::launch::batch::{Batch, Job, JobEnd, JobSpec, JobState, System, render};

/// What a program is given, and what it does then: a shell script. What it gets on stdin is kept in the file `script`.
type StandIn = (&'static str, &'static str);

const SUBMIT_END: &str = "cat > \"$D/script\"; grep -q nowhere \"$D/script\" && ";

fn stand_ins(system: System) -> Vec<StandIn> {
    match system {
        System::OpenPbs => vec![
            ("qsub", "[ $# = 0 ] || exit 99; SUBMIT { echo 'qsub: Unknown queue' >&2; exit 170; }; echo '12[].server'"),
            (
                "qstat",
                "[ \"$*\" = '-f -t 12[].server 13.server' ] && { printf 'Job Id: 12[].server\\n    job_state = B\\n\\nJob Id: \
                 12[1].server\\n    job_state = R\\n    exec_host = node1/0*2\\n\\nJob Id: 12[2].server\\n    job_state = Q\\n    comment = \
                 Not Running: no room\\n\\n'; echo 'qstat: 13.server Job has finished, use -x or -H' >&2; exit 35; }; \
                 [ \"$*\" = '-x -f -t 13.server' ] && { printf 'Job Id: 13.server\\n    job_state = F\\n    Exit_status = 3\\n'; exit 0; }; exit 99",
            ),
            ("qdel", "[ \"$*\" = '12[].server' ] && exit 0; echo \"qdel: Unknown Job Id $1\" >&2; exit 153"),
        ],
        System::Torque => vec![
            (
                "qsub",
                "[ $# = 0 ] || exit 99; SUBMIT { echo 'qsub: submit error (Unknown queue)' >&2; exit 1; }; echo '12[].server'",
            ),
            (
                "qstat",
                "[ \"$*\" = '-f -t 12[].server 13.server' ] || exit 99; printf 'Job Id: 12[1].server\\n    job_state = R\\n    exec_host = \
                 node1/0+node1/1\\n\\nJob Id: 12[2].server\\n    job_state = Q\\n    comment = Not Running: no room\\n\\nJob Id: \
                 13.server\\n    job_state = C\\n    exit_status = 3\\n'",
            ),
            ("qdel", "[ \"$*\" = '12[].server' ] && exit 0; echo \"qdel: Unknown Job Id Error $1\" >&2; exit 153"),
        ],
        System::Sge => vec![
            (
                "qsub",
                "[ \"$*\" = -terse ] || exit 99; SUBMIT { echo 'Unable to run job: Job was rejected: Unknown queue' >&2; exit 1; }; echo '12.1-2:1'",
            ),
            (
                "qstat",
                "[ $# = 0 ] || exit 99; echo 'job-ID  prior   name       user         state submit/start at     queue     slots ja-task-ID'; \
                 echo '-----'; echo '12 0.5 engines me r 07/02/2010 12:00:00 all.q@node1 1 1'; echo '12 0.0 engines me qw 07/02/2010 12:00:00 1 2'; \
                 echo '77 0.0 other you r 07/02/2010 12:00:00 all.q@node2 1'",
            ),
            (
                "qacct",
                "[ \"$*\" = '-j 13' ] && { echo =============; printf 'jobnumber    13\\ntaskid       undefined\\nfailed       0\\nexit_status  \
                 3\\n'; exit 0; }; echo \"error: job id $2 not found\" >&2; exit 1",
            ),
            ("qdel", "[ \"$*\" = 12 ] && exit 0; echo \"denied: job \\\"$1\\\" does not exist\"; exit 1"),
        ],
        System::Lsf => vec![
            (
                "bsub",
                "[ $# = 0 ] || exit 99; SUBMIT { echo 'nowhere: Unknown queue. Job not submitted.' >&2; exit 255; }; \
                 echo 'Job <12> is submitted to default queue <normal>.'",
            ),
            (
                "bjobs",
                "[ \"$1 $2 $3 $5 $6\" = '-a -noheader -o 12 13' ] || exit 99; case $4 in 'jobid jobindex stat '*\"delimiter='|'\") ;; *) exit \
                 98;; esac; echo '12|1|RUN|2*node1|-|-|-'; echo '12|2|PEND|-|-|-|Not Running: no room'; echo '13|0|EXIT|node1|3|-|-'",
            ),
            ("bkill", "[ \"$*\" = 12 ] && exit 0; echo \"Job <$1>: No matching job found\" >&2; exit 255"),
        ],
        System::HtCondor => vec![
            (
                "condor_submit",
                "[ \"$*\" = -terse ] || exit 99; SUBMIT { echo 'ERROR: Unknown queue' >&2; exit 1; }; echo '12.0 - 12.1'",
            ),
            (
                "condor_q",
                "case \"$*\" in '12 13 -af:t ClusterId ProcId JobStatus '*) ;; *) exit 99;; esac; u=undefined; \
                 printf '12\\t0\\t2\\tslot1@node1\\t%s\\t%s\\t%s\\t%s\\t%s\\n' $u $u $u $u $u; \
                 printf '12\\t1\\t5\\t%s\\t%s\\t%s\\t%s\\tNot Running: no room\\t%s\\n' $u $u $u $u $u",
            ),
            (
                "condor_history",
                "case \"$*\" in '13 -af:t ClusterId ProcId JobStatus '*) ;; *) exit 99;; esac; u=undefined; \
                 printf '13\\t0\\t4\\t%s\\t3\\tfalse\\t%s\\t%s\\t%s\\n' $u $u $u $u",
            ),
            (
                "condor_rm",
                "[ \"$*\" = 12 ] && exit 0; echo \"Couldn't find/remove all jobs in cluster $1\" >&2; exit 1",
            ),
        ],
        System::Slurm => panic!("it is tested on the real thing"),
    }
}

/// A system whose programs are these, in a folder.
fn install(system: System, folder: &Path) -> Batch {
    for (name, script) in stand_ins(system) {
        let path = folder.join(name);
        let script = script.replace("SUBMIT ", SUBMIT_END);
        fs::write(&path, format!("#!/bin/sh\nD={}\n{script}\n", folder.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut batch = Batch::new(system);
    let commands = &mut batch.commands;
    for command in [&mut commands.submit, &mut commands.list, &mut commands.history, &mut commands.cancel] {
        if let Some(program) = command.first_mut() {
            *program = folder.join(&*program).display().to_string();
        }
    }
    batch
}

fn spec(queue: &str) -> JobSpec {
    JobSpec {
        name: "engines".into(),
        engines: 2,
        elements: 2,
        program: ["remuda", "nanny"].map(str::to_owned).into(),
        tag: "u1".into(),
        queue: queue.into(),
        options: if queue.is_empty() { String::new() } else { format!("# {queue}") },
        ..JobSpec::default()
    }
}

#[test]
fn jobs_are_submitted_watched_and_cancelled_by_the_systems_own_programs() {
    for system in System::ALL.into_iter().filter(|system| *system != System::Slurm) {
        let folder = tempfile::tempdir().unwrap();
        let batch = install(system, folder.path());
        let submit = |queue| {
            let script = render(system, system.template(), &spec(queue)).unwrap();
            let job = batch.submit(&script, 2);
            assert_eq!(fs::read_to_string(folder.path().join("script")).unwrap(), script, "it comes on stdin, whole");
            job
        };
        let job = submit("").unwrap();
        let is_pbs = matches!(system, System::OpenPbs | System::Torque);
        assert_eq!(job, Job { id: if is_pbs { "12[].server" } else { "12" }.into(), elements: 2 }, "{system:?}");

        let other = Job { id: if is_pbs { "13.server" } else { "13" }.into(), elements: 0 };
        let statuses = batch.poll(&[job.clone(), other.clone()]).unwrap();
        let states: Vec<_> = statuses.iter().map(|status| (status.element, &status.state)).collect();
        let first = system.first_element();
        let [(one, running), (two, pending), (none, ended)] = states[..] else { panic!("{states:?}") };
        assert_eq!((one, two, none), (Some(first), Some(first + 1), None));
        assert_eq!(running, &JobState::Running { host: "node1".into() }, "{system:?}");
        let JobState::Pending { reason } = pending else { panic!("{system:?}: {pending:?}") };
        assert!(reason.contains("Not Running: no room") || system == System::Sge, "{system:?}: {reason}");
        let failed = JobEnd::Failed { code: Some(3), reason: String::new() };
        assert_eq!(ended, &JobState::Ended(failed), "{system:?}");

        batch.cancel(&job, None).unwrap();
        batch.cancel(&other, None).unwrap();

        let error = submit("nowhere").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("Unknown queue"), "{system:?}: {source}");
    }
}

#[test]
fn a_system_that_does_not_answer_is_an_error_and_one_that_is_not_there_is_named() {
    for system in System::ALL {
        let mut batch = Batch::new(system);
        batch.commands.list = ["sh", "-c", "echo 'cannot connect to server' >&2; exit 1"].map(str::to_owned).into();
        let jobs = [Job { id: "12".into(), elements: 0 }];
        let source = |error: &dyn std::error::Error| error.source().unwrap().to_string();
        let said = source(&batch.poll(&jobs).unwrap_err());
        assert!(said.contains("cannot connect to server"), "{system:?}: {said}");
        batch.commands.submit = vec!["/no/such/program".into()];
        let said = source(&batch.submit("", 0).unwrap_err());
        assert!(said.contains("`/no/such/program`: is it installed"), "{said}");
        batch.commands.submit = ["sh", "-c", "echo welcome"].map(str::to_owned).into();
        assert!(batch.submit("", 0).unwrap_err().to_string().contains("`welcome`"), "{system:?}");
    }
}

#[test]
fn stock_knows_a_job_by_what_is_in_the_cluster_file() {
    let batch = Batch::new(System::Slurm);
    let stock = batch.to_stock(&Job { id: "17".into(), elements: 2 }, &spec("long"));
    assert_eq!((&stock["job_id"], &stock["n"], &stock["queue"]), (&"17".into(), &4.into(), &"long".into()));
}

//! The settings that ipyparallel has, and what each is here: one table for the command line, the configuration files and
//! the documentation (`ipcontroller --help-all`, `ipengine --help-all`, `ipcluster start --help-all`).

/// The programs that have settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `remuda controller`, `ipcontroller`.
    Controller,
    /// `remuda engine`.
    Engine,
    /// `remuda cluster`, `ipcluster`.
    Cluster,
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Controller, Self::Engine, Self::Cluster];

    /// Name of the stock program, of its configuration file and its log.
    pub(crate) fn stock_name(self) -> &'static str {
        match self {
            Self::Controller => "ipcontroller",
            Self::Engine => "ipengine",
            Self::Cluster => "ipcluster",
        }
    }

    /// Name of the command, and of its table in `remuda.toml`.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Engine => "engine",
            Self::Cluster => "cluster",
        }
    }

    /// What a class of stock is called here, under all the names that it has.
    pub(crate) fn canonical(self, class: &str) -> &str {
        match (self, class) {
            (_, "Application" | "BaseIPythonApplication" | "BaseParallelApplication") => "Application",
            (Self::Controller, "HubFactory" | "IPControllerApp" | "Hub") => "IPController",
            (Self::Engine, "EngineFactory" | "IPEngineApp") => "IPEngine",
            (Self::Cluster, "IPClusterStart" | "IPClusterEngines" | "IPClusterStop" | "IPClusterList") => "IPCluster",
            (Self::Cluster, "IPClusterClean") => "IPCluster",
            (Self::Cluster, "LocalEngineLauncher" | "EngineLauncher") => "LocalEngineSetLauncher",
            (Self::Cluster, "ControllerLauncher") => "LocalControllerLauncher",
            (_, other) => other,
        }
    }
}

/// How the value of a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text, or a number.
    One,
    /// Yes or no.
    Switch,
    /// Several, joined with commas.
    Many,
    /// Several, of which each is given by an option of its own.
    Each,
    /// A Python class, of which the last part of the name counts.
    Class,
}

/// What a setting is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The option with this long name.
    Option(&'static str, Kind),
    /// Nothing: it is accepted, with a warning that says this.
    None(&'static str),
}

/// One setting, or with the name `*` all of a class that are not named elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    /// Stock's short spelling, where it is not that of our option.
    pub(crate) short: Short,
    pub(crate) meaning: Meaning,
}

/// A short spelling, without the dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// There is none, or our option has the same.
    Same,
    /// Takes a value.
    Valued(&'static str),
    /// Stands for a value of the setting.
    Flag(&'static str, &'static str),
}

use Kind::{Class, Each, Many, One, Switch};
use Meaning::{None as Nothing, Option as Opt};
use Short::{Flag, Same, Valued};

const fn set(class: &'static str, name: &'static str, short: Short, meaning: Meaning) -> Setting {
    Setting { class, name, short, meaning }
}

const OWN_LOG: &str = "the log has a format of its own";
const PYTHON_APP: &str = "it concerns IPython's own applications";
const DEPRECATED_PORT: &str = "deprecated in ipyparallel 7 too: use `--ports`, `--engine-ports` or `--client-ports`";
const SESSION_INNER: &str = "it tunes the Python implementation of messages";
const NO_MONITOR: &str = "the parts of the controller are threads of one process, which need no sockets between them";
const MONGO: &str = "there is no MongoDB store: `--sqlitedb` keeps records in a database";
const PYTHON_ENGINE: &str = "a native engine runs no Python: give it to `ipengine`";
const CLUSTER_LOG: &str = "controller and engines write logs into the profile's folder: give it to them";
const OTHER_LAUNCHER: &str = "launchers have options of their own here: `remuda cluster start --help` lists them";

/// What all programs have.
const COMMON: &[Setting] = &[
    set("Application", "profile", Same, Opt("profile", One)),
    set("ProfileDir", "location", Same, Opt("profile-dir", One)),
    set("Application", "ipython_dir", Same, Opt("ipython-dir", One)),
    set("Application", "cluster_id", Same, Opt("cluster-id", One)),
    set("Application", "extra_config_file", Same, Opt("config", One)),
    set("Application", "work_dir", Same, Opt("work-dir", One)),
    set("Application", "log_level", Same, Opt("log-level", One)),
    set("Application", "log_level", Flag("debug", "debug"), Opt("log-level", One)),
    set("Application", "log_level", Flag("quiet", "50"), Opt("log-level", One)),
    set("Application", "log_to_file", Same, Opt("log-to-file", Switch)),
    set("Application", "clean_logs", Same, Opt("clean-logs", Switch)),
    set("Application", "show_config", Same, Opt("show-config", Switch)),
    set("Application", "show_config_json", Same, Opt("show-config-json", Switch)),
    set("Application", "log_url", Valued("log-url"), Nothing("logs are not forwarded over ZeroMQ")),
    set("Application", "log_format", Same, Nothing(OWN_LOG)),
    set("Application", "log_datefmt", Same, Nothing(OWN_LOG)),
    set("Application", "logging_config", Same, Nothing(OWN_LOG)),
    set("Application", "copy_config_files", Flag("init", "True"), Nothing("no configuration file is written for you")),
    set("Application", "auto_create", Same, Nothing("a profile folder that is missing is always made")),
    set("Application", "*", Same, Nothing(PYTHON_APP)),
    set("ProfileDir", "*", Same, Nothing(PYTHON_APP)),
];

/// What controller and engine have.
const SESSION: &[Setting] = &[
    set("Session", "buffer_threshold", Same, Nothing(SESSION_INNER)),
    set("Session", "copy_threshold", Same, Nothing(SESSION_INNER)),
    set("Session", "item_threshold", Same, Nothing(SESSION_INNER)),
    set("Session", "check_pid", Same, Nothing(SESSION_INNER)),
    set("Session", "debug", Same, Nothing("use `--log-level=trace`")),
    set("Session", "digest_history_size", Same, Nothing("as many signatures are remembered as by default")),
    set("Session", "metadata", Same, Nothing("no peer reads it")),
    set("Session", "username", Valued("user"), Nothing("no peer reads it; it is that of the environment")),
];

const CONTROLLER: &[Setting] = &[
    set("IPController", "ip", Same, Opt("ip", One)),
    set("IPController", "engine_ip", Same, Opt("engine-ip", One)),
    set("IPController", "client_ip", Same, Opt("client-ip", One)),
    set("IPController", "transport", Same, Opt("transport", One)),
    set("IPController", "engine_transport", Same, Opt("engine-transport", One)),
    set("IPController", "client_transport", Same, Opt("client-transport", One)),
    set("IPController", "location", Same, Opt("location", One)),
    set("IPController", "ssh_server", Same, Opt("ssh", One)),
    set("IPController", "engine_ssh_server", Same, Opt("enginessh", One)),
    set("IPController", "regport", Same, Opt("port", One)),
    set("IPController", "ports", Same, Opt("ports", Many)),
    set("IPController", "engine_ports", Same, Opt("engine-ports", Many)),
    set("IPController", "client_ports", Same, Opt("client-ports", Many)),
    set("IPController", "broadcast_scheduler_depth", Same, Opt("broadcast-depth", One)),
    set("IPController", "registration_timeout", Same, Opt("registration-timeout", One)),
    set("HeartMonitor", "period", Same, Opt("ping", One)),
    set("HeartMonitor", "max_heartmonitor_misses", Same, Opt("max-heart-misses", One)),
    set("HeartMonitor", "debug", Same, Nothing("use `--log-level=debug`")),
    set("TaskScheduler", "scheme_name", Same, Opt("scheme", One)),
    set("TaskScheduler", "hwm", Same, Opt("hwm", One)),
    set("IPController", "db_class", Same, Opt("db", Class)),
    set("IPController", "db_class", Flag("dictdb", "DictDB"), Opt("db", Class)),
    set("IPController", "db_class", Flag("sqlitedb", "SQLiteDB"), Opt("db", Class)),
    set("IPController", "db_class", Flag("nodb", "NoDB"), Opt("db", Class)),
    set("IPController", "db_class", Flag("mongodb", "MongoDB"), Opt("db", Class)),
    set("DictDB", "record_limit", Same, Opt("record-limit", One)),
    set("DictDB", "size_limit", Same, Opt("size-limit", One)),
    set("DictDB", "cull_fraction", Same, Opt("cull-fraction", One)),
    set("SQLiteDB", "filename", Same, Opt("sqlite-filename", One)),
    set("SQLiteDB", "location", Same, Opt("sqlite-location", One)),
    set("SQLiteDB", "table", Same, Opt("sqlite-table", One)),
    set("MongoDB", "*", Same, Nothing(MONGO)),
    set("IPController", "reuse_files", Same, Opt("reuse", Switch)),
    set("IPController", "restore_engines", Same, Opt("restore", Switch)),
    set("IPController", "client_json_file", Same, Opt("client-file", One)),
    set("IPController", "engine_json_file", Same, Opt("engine-file", One)),
    set("Session", "key", Same, Opt("key", One)),
    set("Session", "key", Flag("no-secure", ""), Opt("key", One)),
    set("Session", "keyfile", Valued("keyfile"), Opt("key-file", One)),
    set("Session", "packer", Same, Opt("packer", One)),
    set("Session", "unpacker", Same, Opt("unpacker", One)),
    set("Session", "signature_scheme", Same, Opt("signature-scheme", One)),
    set("Session", "session", Valued("ident"), Nothing("the hub's own id is never an address")),
    set("IPController", "enable_curve", Same, Opt("enable-curve", Switch)),
    set("IPController", "curve_secretkey", Same, Opt("curve-secretkey", One)),
    set("IPController", "curve_publickey", Same, Opt("curve-publickey", One)),
    set("IPController", "use_threads", Flag("usethreads", "True"), Nothing("the schedulers are threads anyway")),
    set("IPController", "monitor_ip", Same, Nothing(NO_MONITOR)),
    set("IPController", "monitor_transport", Same, Nothing(NO_MONITOR)),
    set("IPController", "mon_port", Same, Nothing(NO_MONITOR)),
    set("IPController", "hb", Same, Nothing(DEPRECATED_PORT)),
    set("IPController", "mux", Same, Nothing(DEPRECATED_PORT)),
    set("IPController", "task", Same, Nothing(DEPRECATED_PORT)),
    set("IPController", "control", Same, Nothing(DEPRECATED_PORT)),
    set("IPController", "iopub", Same, Nothing(DEPRECATED_PORT)),
    set("IPController", "notifier_port", Same, Nothing(DEPRECATED_PORT)),
];

const ENGINE: &[Setting] = &[
    set("IPEngine", "url_file", Same, Opt("file", One)),
    set("IPEngine", "timeout", Same, Opt("timeout", One)),
    set("IPEngine", "wait_for_url_file", Same, Opt("wait-for-file", One)),
    set("IPEngine", "id", Same, Opt("id", One)),
    set("IPEngine", "max_heartbeat_misses", Same, Opt("max-missed-pings", One)),
    set("IPEngine", "location", Same, Opt("location", One)),
    set("Session", "session", Same, Opt("ident", One)),
    set("IPEngine", "registration_url", Valued("url"), Nothing("the connection file says where the controller is")),
    set("IPEngine", "url_file_name", Same, Nothing("use `--file`")),
    set("IPEngine", "sshserver", Valued("ssh"), Nothing("no tunnel is made: make one with `ssh -L`, and use `--file`")),
    set("IPEngine", "sshkey", Valued("sshkey"), Nothing("no tunnel is made: make one with `ssh -L`, and use `--file`")),
    set("IPEngine", "paramiko", Same, Nothing("no tunnel is made: make one with `ssh -L`, and use `--file`")),
    set(
        "IPEngine",
        "use_mpi",
        Flag("mpi", "True"),
        Nothing("a native engine has no MPI; give it an `--id` if need be"),
    ),
    set("IPEngine", "init_mpi", Same, Nothing("a native engine has no MPI")),
    set("IPEngine", "mpi_registration_delay", Same, Nothing("a native engine has no MPI")),
    set("IPEngine", "enable_nanny", Same, Nothing("a native engine runs tasks as processes, and needs no nanny")),
    set("IPEngine", "curve_serverkey", Same, Nothing("set `IPP_CURVE_SERVERKEY`, if the connection file has none")),
    set("IPEngine", "curve_secretkey", Same, Nothing("set `IPP_CURVE_SECRETKEY`")),
    set("IPEngine", "curve_publickey", Same, Nothing("set `IPP_CURVE_PUBLICKEY`")),
    set("IPEngine", "startup_command", Valued("c"), Nothing(PYTHON_ENGINE)),
    set("IPEngine", "startup_script", Valued("s"), Nothing(PYTHON_ENGINE)),
    set("IPEngine", "display_hook_factory", Same, Nothing(PYTHON_ENGINE)),
    set("IPEngine", "out_stream_factory", Same, Nothing(PYTHON_ENGINE)),
    set("InteractiveShell", "*", Same, Nothing(PYTHON_ENGINE)),
    set("ZMQInteractiveShell", "*", Same, Nothing(PYTHON_ENGINE)),
    set("Kernel", "*", Same, Nothing(PYTHON_ENGINE)),
    set("IPythonKernel", "*", Same, Nothing(PYTHON_ENGINE)),
    set("IPythonParallelKernel", "*", Same, Nothing(PYTHON_ENGINE)),
    set("Session", "key", Same, Nothing("the connection file has the key")),
    set("Session", "keyfile", Valued("keyfile"), Nothing("the connection file has the key")),
    set("Session", "packer", Same, Nothing("the connection file names the packer")),
    set("Session", "unpacker", Same, Nothing("the connection file names the packer")),
    set("Session", "signature_scheme", Same, Nothing("the connection file names it")),
];

const CLUSTER: &[Setting] = &[
    set("Cluster", "n", Same, Opt("n", One)),
    set("Cluster", "engine_launcher_class", Same, Opt("engines", Class)),
    set("Cluster", "controller_launcher_class", Same, Opt("controller", Class)),
    set("Cluster", "controller_ip", Same, Opt("ip", One)),
    set("Cluster", "controller_location", Same, Opt("location", One)),
    set("Cluster", "controller_args", Same, Opt("controller-arg", Each)),
    set("LocalControllerLauncher", "controller_args", Same, Opt("controller-arg", Each)),
    set("LocalEngineSetLauncher", "engine_args", Same, Opt("engine-arg", Each)),
    set("Cluster", "delay", Same, Opt("delay", One)),
    set("LocalEngineSetLauncher", "delay", Same, Nothing("engines are started at once: a controller takes thousands")),
    set("Cluster", "engine_timeout", Same, Opt("timeout", One)),
    set("IPCluster", "daemonize", Same, Opt("daemonize", Switch)),
    set("IPCluster", "all_cluster_ids", Same, Opt("all", Switch)),
    set("IPCluster", "all_profiles", Same, Opt("all", Switch)),
    set("IPCluster", "force", Same, Opt("force", Switch)),
    set("IPCluster", "output_format", Same, Opt("output", One)),
    set("IPCluster", "signal", Valued("signal"), Nothing("stock does not use it either")),
    set("Application", "log_level", Valued("log-level"), Nothing(CLUSTER_LOG)),
    set("Application", "log_level", Flag("debug", "10"), Nothing(CLUSTER_LOG)),
    set("Application", "log_level", Flag("quiet", "50"), Nothing(CLUSTER_LOG)),
    set("Application", "log_to_file", Flag("log-to-file", "True"), Nothing(CLUSTER_LOG)),
    set("Application", "clean_logs", Same, Opt("clean-logs", Switch)),
    set("IPCluster", "early_shutdown", Same, Nothing("engines that end early are always named")),
    set("Cluster", "load_profile", Same, Nothing("the profile is always read")),
    set("Cluster", "send_engines_connection_env", Same, Nothing("local engines read the file")),
    set("LocalControllerLauncher", "*", Same, Nothing("the controller is this program")),
    set("LocalEngineSetLauncher", "*", Same, Nothing("use `--engines` and `--python`")),
    set("BaseLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("LocalProcessLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("MPILauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("MPIControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("MPIEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SSHLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SSHControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SSHEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SSHProxyEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("BatchSystemLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("BatchControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("BatchEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("HTCondorLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("HTCondorControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("HTCondorEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("LSFLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("LSFControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("LSFEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("PBSLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("PBSControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("PBSEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SGELauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SGEControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SGEEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SlurmLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SlurmControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("SlurmEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("WindowsHPCLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("WindowsHPCControllerLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
    set("WindowsHPCEngineSetLauncher", "*", Same, Nothing(OTHER_LAUNCHER)),
];

impl Program {
    /// All settings of the program, in the order in which they are documented.
    pub(crate) fn settings(self) -> impl Iterator<Item = &'static Setting> {
        let (own, session): (&[Setting], &[Setting]) = match self {
            Self::Controller => (CONTROLLER, SESSION),
            Self::Engine => (ENGINE, SESSION),
            Self::Cluster => (CLUSTER, &[]),
        };
        // What a program has of its own under the same name goes over what all have.
        let is_own = |setting: &Setting| own.iter().any(|one| (one.class, one.name) == (setting.class, setting.name));
        let rest = session.iter().chain(COMMON);
        own.iter().chain(rest.filter(move |setting| setting.name == "*" || !is_own(setting)))
    }

    /// The application class itself: everything under `Application` may be written with it too.
    fn own_class(self) -> &'static str {
        match self {
            Self::Controller => "IPController",
            Self::Engine => "IPEngine",
            Self::Cluster => "IPCluster",
        }
    }

    /// The setting that stock calls `class.name`.
    pub(crate) fn setting(self, class: &str, name: &str) -> Option<&'static Setting> {
        let class = self.canonical(class);
        let find =
            |class: &str, name: &str| self.settings().find(|setting| setting.class == class && setting.name == name);
        let inherited = (class == self.own_class()).then_some("Application");
        find(class, name).or_else(|| inherited.and_then(|base| find(base, name))).or_else(|| find(class, "*")).or_else(
            || {
                // What IPython's applications have beyond what is named here, under the name of the program.
                let known = ["add_ipython_dir_to_sys_path", "overwrite", "verbose_crash"];
                inherited.filter(|_| known.contains(&name)).and_then(|base| find(base, "*"))
            },
        )
    }

    /// The setting with this short spelling.
    pub(crate) fn short(self, spelling: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| match setting.short {
            Same => false,
            Valued(short) | Flag(short, _) => short == spelling,
        })
    }

    /// Whether there is anything under the class.
    pub(crate) fn has_class(self, class: &str) -> bool {
        let class = self.canonical(class);
        self.settings().any(|setting| setting.class == class)
    }

    /// The `Class.name` that is most like this one, if any is.
    pub(crate) fn nearest(self, class: &str, name: &str) -> Option<String> {
        let wanted = format!("{class}.{name}").to_lowercase();
        let all = self.settings().filter(|setting| setting.name != "*").map(|setting| {
            let text = format!("{}.{}", setting.class, setting.name);
            (strsim::normalized_damerau_levenshtein(&wanted, &text.to_lowercase()), text)
        });
        let best = all.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.filter(|(likeness, _)| *likeness > 0.6).map(|(_, text)| text)
    }
}

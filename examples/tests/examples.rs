//! Each example, run as it stands at its top: with a controller, and its engine as a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use remuda_client::blocking::Wait;
use remuda_client::{Client, ConnectOptions};
use remuda_cluster::{Controller, ControllerConfig, HeartConfig};
use remuda_tests::{DEADLINE, Finished, Place, finish, wait_for};

/// A controller in this process, and the examples' engine in others.
struct Cluster {
    place: Place,
    engines: Vec<Child>,
    controller: Option<Controller>,
}

impl Cluster {
    fn new(engines: usize) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_engine"));
        let mut config = ControllerConfig::new(place.profile());
        config.heart = HeartConfig { period: Duration::from_millis(100), max_misses: 100 };
        let controller = Controller::start(&config).unwrap();
        let mut cluster = Self { place, engines: Vec::new(), controller: Some(controller) };
        for number in 0..engines {
            let log = File::create(cluster.log(number)).unwrap();
            let mut engine = cluster.command(env!("CARGO_BIN_EXE_engine"), &[]);
            cluster.engines.push(engine.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        }
        cluster.client(engines);
        cluster
    }

    fn log(&self, engine: usize) -> std::path::PathBuf {
        self.place.folder().join(format!("engine-{engine}.log"))
    }

    /// An ordinary client, once the engines are there.
    fn client(&self, engines: usize) -> Client {
        let client = Client::connect(ConnectOptions::file(self.place.profile().client_file())).wait().unwrap();
        client.wait_for_engines(engines, DEADLINE).wait().unwrap();
        client
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.place.folder()).stdin(Stdio::null());
        command.env_remove("IPP_CLUSTER_ID").env("IPP_PROFILE_DIR", self.place.profile().dir());
        // Errors are compared as a user sees them.
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs an example, which does what it should.
    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) -> Finished {
        let finished = finish(self.command(program, args));
        assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
        finished
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for engine in &mut self.engines {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        if let Some(controller) = self.controller.take() {
            controller.stopper().stop();
            controller.wait();
        }
    }
}

/// The numbers in a text, whatever stands between them.
fn numbers(text: &str) -> Vec<f64> {
    let words = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    words.filter_map(|word| word.trim_end_matches('.').parse().ok()).collect()
}

#[test]
fn monte_carlo_comes_to_the_same_price_with_one_engine_and_with_two() {
    let run = |engines| Cluster::new(engines).run(env!("CARGO_BIN_EXE_monte_carlo"), &["40000"]);
    let (one, two) = (run(1), run(2));
    let price = |finished: &Finished| numbers(finished.stdout.lines().next().unwrap());
    let [mean, error] = price(&one)[..] else { panic!("{}", one.stdout) };
    // 5.78 by 10⁸ paths; the error bar is 1.96 of the standard error.
    assert!((mean - 5.78).abs() < 2.0 * error && (0.05..0.12).contains(&error), "{}", one.stdout);
    // Only the order in which it is added up differs.
    assert!((mean - price(&two)[0]).abs() < 2e-4, "{}{}", one.stdout, two.stdout);
    assert!(one.stdout.ends_with("40000 paths of 252 days in 40 batches\n"), "{}", one.stdout);
    assert_eq!(one.stderr.lines().count(), 10, "{}", one.stderr);
    // More paths, a smaller error.
    let first = numbers(one.stderr.lines().next().unwrap());
    assert!(first[2] > 2.0 * error, "{}", one.stderr);
}

#[test]
fn word_count_adds_up_what_stands_in_all_files() {
    let cluster = Cluster::new(1);
    let folder = cluster.place.folder().join("texts");
    std::fs::create_dir_all(folder.join("within")).unwrap();
    // Larger than what travels inside of an argument, too.
    std::fs::write(folder.join("long.txt"), "Horse and rider. ".repeat(10_000)).unwrap();
    std::fs::write(folder.join("within/short.txt"), "A horse; the HORSE, and\nÄrger mit ärger").unwrap();
    std::fs::write(folder.join("within/bytes"), [0xff, b'a', 0xfe]).unwrap();
    std::fs::write(folder.join(".hidden"), "horse").unwrap();
    let finished = cluster.run(env!("CARGO_BIN_EXE_word_count"), &["texts"]);
    let top: Vec<Vec<&str>> = finished.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let wanted: [[&str; 2]; 7] = [
        ["10002", "horse"],
        ["10001", "and"],
        ["10000", "rider"],
        ["2", "a"],
        ["2", "ärger"],
        ["1", "mit"],
        ["1", "the"],
    ];
    assert_eq!(top, wanted);
    assert_eq!(finished.stderr, "3 files, 30009 words, 7 different\n");

    let nothing = finish(cluster.command(env!("CARGO_BIN_EXE_word_count"), &["nowhere"]));
    assert!(nothing.code == Some(1) && nothing.stderr.contains("cannot list nowhere"), "{}", nothing.stderr);
}

#[test]
fn dag_runs_each_step_after_those_that_it_depends_on() {
    let cluster = Cluster::new(2);
    let finished = cluster.run(env!("CARGO_BIN_EXE_dag"), &[]);
    let rows: Vec<Vec<String>> = finished
        .stdout
        .lines()
        .skip(1)
        .map(|line| {
            // Names of steps have spaces in them.
            let (name, rest) = line.split_at(8);
            [name.trim()].into_iter().chain(rest.split_whitespace()).map(str::to_owned).collect()
        })
        .collect();
    let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{}", finished.stdout));
    let (from, to) = (|name| numbers(&row(name)[2])[0], |name| numbers(&row(name)[3])[0]);
    let fetches = ["fetch a", "fetch b", "fetch c"];
    for fetch in fetches {
        assert!(to("plan") <= from(fetch), "{}", finished.stdout);
        assert!(to(fetch) <= from("resize") && to(fetch) <= from("check"), "{}", finished.stdout);
    }
    assert!(to("resize").max(to("check")) <= from("tidy up"), "{}", finished.stdout);
    assert_eq!(row("resize")[1], row("fetch c")[1], "it follows: {}", finished.stdout);
    // They are shown in the order in which they ran.
    let begun: Vec<f64> = rows.iter().filter(|row| row[2] != "-").map(|row| numbers(&row[2])[0]).collect();
    assert!(begun.len() == 7 && begun.is_sorted() && begun[0] == 0.0, "{}", finished.stdout);
    assert_eq!(row("check")[4..].join(" "), "FunctionError: check was told to fail");
    assert_eq!(
        rows[7].join(" "),
        "publish - - - task `publish` can never run: its dependencies or targets can no longer be met"
    );
}

#[test]
fn sweep_shows_the_point_that_fails_and_all_others() {
    let cluster = Cluster::new(1);
    let finished = cluster.run(env!("CARGO_BIN_EXE_sweep"), &["3.2", "4.2", "6"]);
    let rows: BTreeMap<&str, Vec<&str>> = finished
        .stdout
        .lines()
        .skip(1)
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.collect())
        })
        .collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), ["3.2000", "3.4000", "3.6000", "3.8000", "4.0000", "4.2000"]);
    assert_eq!((rows["3.2000"][0], rows["3.6000"][0]), ("2", "chaos"));
    // Between its two points the mean is (1 + 1/growth) / 2.
    assert!((numbers(rows["3.2000"][1])[0] - f64::midpoint(1.0, 1.0 / 3.2)).abs() < 1e-5, "{}", finished.stdout);
    assert!(rows["3.4000"][2].starts_with('-') && !rows["3.8000"][2].starts_with('-'), "{}", finished.stdout);
    assert_eq!(rows["4.2000"].join(" "), "- FunctionError: with a growth of 4.2 it runs away at step 1");
    // In a pipe there is no bar.
    assert_eq!(finished.stderr, "1 of 6 points failed\n");
}

#[test]
fn mandelbrot_writes_a_picture() {
    let cluster = Cluster::new(1);
    // An odd height has a row in the middle, and 61 rows are no whole number of bands.
    let finished = cluster.run(env!("CARGO_BIN_EXE_mandelbrot"), &["set.ppm", "92"]);
    let file = std::fs::read(cluster.place.folder().join("set.ppm")).unwrap();
    let (width, height) = (92, 61);
    let pixels = file.strip_prefix(b"P6 92 61 255\n").unwrap();
    assert_eq!(pixels.len(), 3 * width * height);
    let pixel = |column: usize, row: usize| &pixels[3 * (row * width + column)..][..3];
    let at = |re: f64, im: f64| {
        let step = 3.6 / 92.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "these points are in the picture")]
        let near = |offset: f64, of: usize| (offset / step + (of as f64 - 1.0) / 2.0).round() as usize;
        pixel(near(re + 0.75, width), near(-im, height))
    };
    for (re, im) in [(0.0, 0.0), (-1.0, 0.0), (0.0, 0.5), (-0.2, -0.6)] {
        assert_eq!(at(re, im), [0, 0, 0], "{re} {im}");
    }
    for (re, im) in [(0.6, 0.0), (-2.3, 0.0), (0.5, 1.0), (-1.0, 0.5)] {
        assert_ne!(at(re, im), [0, 0, 0], "{re} {im}");
    }
    assert!((0..height).all(|row| (0..width).all(|column| pixel(column, row) == pixel(column, height - 1 - row))));
    let black = pixels.chunks(3).filter(|pixel| *pixel == [0, 0, 0]).count() as f64;
    let area = numbers(finished.stdout.lines().nth(1).unwrap())[1];
    assert!(
        (area - black * (3.6_f64 / 92.0).powi(2)).abs() < 1e-3 && (area - 1.507).abs() < 0.1,
        "{}",
        finished.stdout
    );
    assert_eq!(finished.stderr, "engine 0 has finished 8 tasks\n");
}

#[test]
fn streaming_shows_results_and_output_and_ends_by_itself() {
    let cluster = Cluster::new(1);
    let finished = cluster.run(env!("CARGO_BIN_EXE_streaming"), &["30"]);
    assert_eq!(finished.stdout.lines().count(), 30);
    for line in finished.stdout.lines() {
        let (number, factors) = line.split_once(" = ").unwrap();
        let product: u64 = factors.split(" · ").map(|factor| factor.parse::<u64>().unwrap()).product();
        assert_eq!(product.to_string(), number);
    }
    let said: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(said.first(), Some(&"from 2 it takes 2 steps"));
    assert_eq!(
        said[said.len() - 2..],
        ["from 837799 it takes 525 steps", "the longest begins at 837799, with 525 steps"]
    );
    // What was under way at the end is given up by nobody, and ends.
    let client = cluster.client(1);
    let rest = || client.queue_status().wait().unwrap();
    wait_for("all tasks", || rest().engines.values().all(|engine| engine.tasks == 0) && rest().unassigned == 0);
    let completed: u64 = rest().engines.values().map(|engine| engine.completed).sum();
    assert!((31..=1 + 30 + 8).contains(&completed), "{completed} tasks, with a bound of 8");
    // The table was made once.
    let log = std::fs::read_to_string(cluster.log(0)).unwrap();
    assert_eq!(log.matches("making the table of primes").count(), 1, "{log}");
}

#[test]
fn blocking_gives_each_number_its_own_end() {
    let cluster = Cluster::new(1);
    let finished = finish(cluster.command(env!("CARGO_BIN_EXE_blocking"), &["360", "0", "999999999989"]));
    let wanted =
        "360: [2, 2, 2, 3, 3, 5]\n0: FunctionError: 0 is not from 1 to 999999999999\n999999999989: [999999999989]\n";
    assert_eq!((finished.code, &*finished.stdout), (Some(1), wanted));
    assert!(finished.stderr.ends_with("Error: 1 of 3 numbers have no factors: see above\n"), "{}", finished.stderr);
    assert!(finished.stderr.starts_with("engine 0\n"), "{}", finished.stderr);
    // Every other one takes long, so that they end in another order.
    let many: Vec<u64> = (2..60).map(|n| if n % 2 == 0 { 999_999_999_989 - n } else { n }).collect();
    let words: Vec<String> = many.iter().map(u64::to_string).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let fine = cluster.run(env!("CARGO_BIN_EXE_blocking"), &words);
    let products = fine.stdout.lines().map(|line| {
        let factors = line.split_once(": [").unwrap().1.trim_end_matches(']');
        factors.split(", ").map(|factor| factor.parse::<u64>().unwrap()).product::<u64>()
    });
    assert_eq!(products.collect::<Vec<_>>(), many);
}

#[test]
fn without_a_controller_each_says_what_to_start() {
    let place = Place::new(env!("CARGO_BIN_EXE_engine"));
    for program in [env!("CARGO_BIN_EXE_engine"), env!("CARGO_BIN_EXE_blocking"), env!("CARGO_BIN_EXE_dag")] {
        let mut command = Command::new(program);
        command.env_remove("IPP_CLUSTER_ID").env("IPP_PROFILE_DIR", place.profile().dir());
        let finished = finish(command);
        assert_eq!((finished.code, &*finished.stdout), (Some(1), ""));
        assert!(finished.stderr.contains("remuda controller"), "{program}: {}", finished.stderr);
    }
}

/// An engine that has other functions is not waited for.
#[test]
fn without_the_examples_engine_a_task_fails_at_once() {
    let cluster = Cluster::new(0);
    let _other = remuda_tests::EngineThread::start(&cluster.place, remuda_engine::Engine::builder());
    cluster.client(1);
    let finished = finish(cluster.command(env!("CARGO_BIN_EXE_blocking"), &["6"]));
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("examples.factor"), "{}", finished.stderr);
}

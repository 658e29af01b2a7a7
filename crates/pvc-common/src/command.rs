//! Programs of the host, run through one seam.
//!
//! Every run has a deadline and a limit on its output, goes without a shell, and gets its secrets by the environment.
//! A program is one of a fixed list ([`Program`]), looked up once at start in the system's own directories, so neither
//! `PATH` nor an argument decides what is executed.
//!
//! Parsers of output are pure functions beside their callers; this module only brings bytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};

use crate::clock::{Clock, HostClock};
use crate::secret::Secret;

/// Where programs are looked for, in this order.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// How long the output of a program that has exited may stay open: a child that it left in the background holds the
/// pipe, and would otherwise cost the whole deadline.
const END_OF_FILE_GRACE: Duration = Duration::from_millis(100);
/// How long to wait for a killed program to be gone. One in an uninterruptible system call stays longer; it is then
/// reaped in the background.
const REAP_GRACE: Duration = Duration::from_millis(500);
/// How much of the end of a program's error output is kept, in bytes.
const STDERR_KEPT: usize = 4096;
/// Output limit of an invocation that sets none, in bytes.
const DEFAULT_OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// The programs that the daemons may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Ceph's administration tool.
    Ceph,
    /// Ceph's block device tool.
    Rbd,
    /// The BMC client.
    Ipmitool,
    /// systemd's control tool.
    Systemctl,
    /// The packet filter's control tool.
    Nft,
    /// The interpreter of Ceph's own tools; runs a program of ours from its standard input.
    Python3,
    /// Lists block devices.
    Lsblk,
    /// Reads what disks tell of themselves.
    Smartctl,
    /// Debian's package manager; only ever to look.
    AptGet,
    /// Tells of MegaRAID controllers.
    Megacli,
    /// Tells of HPE Smart Array controllers.
    Ssacli,
    /// Tells of Dell BOSS controllers.
    Mvcli,
}

impl Program {
    /// Every program, in the order of the enum.
    pub const ALL: [Program; 12] = [
        Program::Ceph,
        Program::Rbd,
        Program::Ipmitool,
        Program::Systemctl,
        Program::Nft,
        Program::Python3,
        Program::Lsblk,
        Program::Smartctl,
        Program::AptGet,
        Program::Megacli,
        Program::Ssacli,
        Program::Mvcli,
    ];

    /// Its file name.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Ceph => "ceph",
            Program::Rbd => "rbd",
            Program::Ipmitool => "ipmitool",
            Program::Systemctl => "systemctl",
            Program::Nft => "nft",
            Program::Python3 => "python3",
            Program::Lsblk => "lsblk",
            Program::Smartctl => "smartctl",
            Program::AptGet => "apt-get",
            Program::Megacli => "megacli",
            Program::Ssacli => "ssacli",
            Program::Mvcli => "mvcli",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One run of a program.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// What to run.
    pub program: Program,
    /// Its arguments. They are shown in errors and logs: never a secret.
    pub args: Vec<OsString>,
    /// Secrets that the program reads from its environment, by variable name.
    pub env: Vec<(&'static str, Secret)>,
    /// What the program reads from its standard input; `None` is an empty input.
    pub stdin: Option<Vec<u8>>,
    /// After this time the program and its children are killed.
    pub deadline: Duration,
    /// Output longer than this, in bytes, kills the program too.
    pub output_limit: usize,
}

impl Invocation {
    /// A run without arguments, secrets or input, limited to 16 MiB of output.
    pub fn new(program: Program, deadline: Duration) -> Invocation {
        Invocation {
            program,
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            deadline,
            output_limit: DEFAULT_OUTPUT_LIMIT,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Invocation {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Invocation {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Hands a secret over in the environment variable `name`.
    #[must_use]
    pub fn secret(mut self, name: &'static str, secret: Secret) -> Invocation {
        self.env.push((name, secret));
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Invocation {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets the limit of the output, in bytes.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Invocation {
        self.output_limit = bytes;
        self
    }

    /// What is shown of this run in errors and logs.
    pub fn command_line(&self) -> CommandLine {
        CommandLine {
            program: self.program,
            args: self
                .args
                .iter()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
        }
    }
}

/// A program and its arguments, for a person to read. Secrets travel by the environment, so none is in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program.
    pub program: Program,
    /// Its arguments; bytes that are not UTF-8 are replaced.
    pub args: Vec<String>,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program)?;
        for arg in &self.args {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b);
            if !arg.is_empty() && arg.bytes().all(plain) {
                write!(f, " {arg}")?;
            } else {
                write!(f, " {arg:?}")?;
            }
        }
        Ok(())
    }
}

/// What a program that exited with 0 wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandOutput {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The end of its error output, for logs.
    pub stderr: String,
}

impl CommandOutput {
    /// The standard output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a run gave no output.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program was not there when the daemon started.
    #[error("{program} is not installed")]
    NotFound {
        /// The program.
        program: Program,
    },
    /// It could not be started.
    #[error("failed to start {}", path.display())]
    Start {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It was killed at its deadline. What it did until then, or still does in the background, is unknown.
    #[error("{command} did not end within {deadline:?} and was killed{}", said(stderr))]
    TimedOut {
        /// What was run.
        command: CommandLine,
        /// The time that it had.
        deadline: Duration,
        /// The end of its error output so far.
        stderr: String,
    },
    /// It was killed for writing too much.
    #[error("{command} wrote more than {limit} bytes and was killed")]
    OutputTooLarge {
        /// What was run.
        command: CommandLine,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It ended with something else than 0.
    #[error("{command} ended with {exit}{}", said(stderr))]
    Failed {
        /// What was run.
        command: CommandLine,
        /// How it ended.
        exit: Exit,
        /// The end of its error output.
        stderr: String,
    },
    /// The connection to it broke.
    #[error("failed to talk to {command}")]
    Pipe {
        /// What was run.
        command: CommandLine,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

fn said(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

/// The way to run a program of the host.
pub trait CommandRunner: Send + Sync {
    /// Runs it and waits for its end.
    ///
    /// # Errors
    /// Anything but exit status 0 within the deadline and the output limit is a [`CommandError`].
    ///
    /// # Cancellation
    /// Dropping the future kills the program; what it has done by then is unknown.
    fn run(
        &self,
        invocation: &Invocation,
    ) -> impl Future<Output = Result<CommandOutput, CommandError>> + Send;
}

/// Runs programs of this host. Needs a tokio runtime with I/O and time.
#[derive(Debug, Clone)]
pub struct HostCommandRunner {
    paths: BTreeMap<Program, PathBuf>,
}

impl HostCommandRunner {
    /// Looks the programs up in the system's directories.
    pub fn from_system() -> HostCommandRunner {
        HostCommandRunner::from_directories(&DIRECTORIES.map(Path::new))
    }

    /// Looks the programs up in `directories`, the first hit counts.
    pub fn from_directories(directories: &[&Path]) -> HostCommandRunner {
        let find = |program: Program| {
            let path = directories
                .iter()
                .map(|dir| dir.join(program.name()))
                .find(|path| is_executable(path))?;
            Some((program, path))
        };
        HostCommandRunner {
            paths: Program::ALL.into_iter().filter_map(find).collect(),
        }
    }

    /// Which of `needed` are not installed: for a start-up check, so that a missing one is seen before it is needed.
    pub fn missing(&self, needed: &[Program]) -> Vec<Program> {
        needed
            .iter()
            .copied()
            .filter(|program| !self.paths.contains_key(program))
            .collect()
    }
}

impl CommandRunner for HostCommandRunner {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        let program = invocation.program;
        let path = self
            .paths
            .get(&program)
            .ok_or(CommandError::NotFound { program })?;
        let started = HostClock.now();
        let result = run_at(path, invocation).await;
        tracing::debug!(
            command = %invocation.command_line(),
            elapsed_ms = HostClock.now().since(started).as_millis(),
            ok = result.is_ok(),
            "host command ended"
        );
        result
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

async fn run_at(path: &Path, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
    let mut child = spawn(path, invocation).map_err(|source| CommandError::Start {
        path: path.to_owned(),
        source,
    })?;
    let group = GroupGuard::of(&child);
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    let ended = HostClock
        .timeout(
            invocation.deadline,
            talk(&mut child, invocation, &mut stdout, &mut stderr),
        )
        .await;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let command = invocation.command_line();
    match ended {
        Some(Ok(status)) => {
            group.disarm();
            match exit(status) {
                Exit::Code(0) => Ok(CommandOutput { stdout, stderr }),
                exit @ (Exit::Code(_) | Exit::Signal(_)) => Err(CommandError::Failed {
                    command,
                    exit,
                    stderr,
                }),
            }
        }
        Some(Err(broken)) => {
            kill(child, group).await;
            Err(match broken {
                Broken::TooLarge => CommandError::OutputTooLarge {
                    command,
                    limit: invocation.output_limit,
                },
                Broken::Io(source) => CommandError::Pipe { command, source },
            })
        }
        None => {
            kill(child, group).await;
            Err(CommandError::TimedOut {
                command,
                deadline: invocation.deadline,
                stderr,
            })
        }
    }
}

fn spawn(path: &Path, invocation: &Invocation) -> io::Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the command runner that everyone else uses"
    )]
    let mut command = tokio::process::Command::new(path);
    command
        .args(&invocation.args)
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        // Parsers expect untranslated output.
        .env("LC_ALL", "C.UTF-8")
        .envs(
            invocation
                .env
                .iter()
                .map(|(name, secret)| (name, secret.expose())),
        )
        .current_dir("/")
        .stdin(if invocation.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that the deadline also ends what the program has started.
        .process_group(0)
        // Dropped before its end, the child is still reaped by the runtime.
        .kill_on_drop(true);
    command.spawn()
}

/// Why talking to a program was given up.
enum Broken {
    TooLarge,
    Io(io::Error),
}

/// Feeds and reads the program until it has exited.
async fn talk(
    child: &mut Child,
    invocation: &Invocation,
    stdout: &mut Vec<u8>,
    stderr: &mut Vec<u8>,
) -> Result<ExitStatus, Broken> {
    let (stdin_pipe, stdout_pipe, stderr_pipe) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pipes = pin!(async {
        futures::try_join!(
            feed(stdin_pipe, invocation.stdin.as_deref()),
            read_limited(stdout_pipe, stdout, invocation.output_limit),
            read_tail(stderr_pipe, stderr),
        )
    });
    let exit = pin!(child.wait());
    match select(exit, pipes).await {
        Either::Left((status, pipes)) => {
            if let Some(Err(broken)) = HostClock.timeout(END_OF_FILE_GRACE, pipes).await {
                return Err(broken);
            }
            status.map_err(Broken::Io)
        }
        Either::Right((Err(broken), _)) => Err(broken),
        Either::Right((Ok(_), exit)) => exit.await.map_err(Broken::Io),
    }
}

async fn feed(pipe: Option<ChildStdin>, bytes: Option<&[u8]>) -> Result<(), Broken> {
    let (Some(mut pipe), Some(bytes)) = (pipe, bytes) else {
        return Ok(());
    };
    match pipe.write_all(bytes).await {
        // A program need not read all of its input; whether it is content shows in its status.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Broken::Io),
    }
}

async fn read_limited(
    pipe: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Broken> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = pipe.read(&mut buffer).await.map_err(Broken::Io)?;
        if count == 0 {
            return Ok(());
        }
        if into.len() + count > limit {
            return Err(Broken::TooLarge);
        }
        into.extend(buffer.iter().take(count));
    }
}

/// Reads all and keeps the end: there is the reason for a failure.
async fn read_tail(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> Result<(), Broken> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; 4096];
    loop {
        let count = pipe.read(&mut buffer).await.map_err(Broken::Io)?;
        if count == 0 {
            return Ok(());
        }
        into.extend(buffer.iter().take(count));
        if into.len() > STDERR_KEPT {
            into.drain(..into.len() - STDERR_KEPT);
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        // waitpid without WUNTRACED reports nothing else.
        (None, None) => Exit::Signal(0),
    }
}

/// Kills the group and reaps its leader.
async fn kill(mut child: Child, group: GroupGuard) {
    drop(group);
    if HostClock.timeout(REAP_GRACE, child.wait()).await.is_none() {
        tracing::warn!("a killed host command hangs in the kernel; it is reaped in the background");
    }
}

/// Kills a process group when dropped, unless its leader was reaped before: only then could the number belong to
/// someone else.
struct GroupGuard(Option<rustix::process::Pid>);

impl GroupGuard {
    fn of(child: &Child) -> GroupGuard {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        GroupGuard(pid.and_then(rustix::process::Pid::from_raw))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // Already gone is as good as killed.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runner that finds the shell under the name of [`Program::Ceph`], and a run of `script` by it. (A script
    /// written here and executed at once would now and then be "busy": another test's fork still has it open.)
    fn shell(script: &str) -> (tempfile::TempDir, HostCommandRunner, Invocation) {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("ceph")).unwrap();
        let runner = HostCommandRunner::from_directories(&[dir.path()]);
        let call = Invocation::new(Program::Ceph, Duration::from_secs(20)).args(["-c", script, "ceph"]);
        (dir, runner, call)
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie still has its directory, but no command line.
        std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
    }

    async fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = HostClock.now() + Duration::from_secs(20);
        while !condition() {
            assert!(HostClock.now() < deadline, "{what} within 20 s");
            HostClock.sleep(Duration::from_millis(10)).await;
        }
    }

    // Arguments with spaces, quotes or dollars (an RBD lock id has spaces) must arrive as they are: no shell.
    #[tokio::test]
    async fn arguments_input_and_secrets_arrive_unchanged() {
        let (_dir, runner, call) = shell(r#"printf '%s|' "$@"; printf '%s|' "$IPMI_PASSWORD" "$HOME"; cat"#);
        let call = call
            .args(["auto 139725", "$(reboot)", ""])
            .secret("IPMI_PASSWORD", Secret::new("s3cret"))
            .stdin("input");
        let output = runner.run(&call).await.unwrap();
        assert_eq!(output.text(), "auto 139725|$(reboot)||s3cret||input");
        assert!(!format!("{call:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_missing_program_is_known_before_it_is_needed() {
        let (_dir, runner, _) = shell("true");
        assert_eq!(runner.missing(&[Program::Ceph, Program::Rbd]), [Program::Rbd]);
        let error = runner
            .run(&Invocation::new(Program::Rbd, Duration::from_secs(1)))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            CommandError::NotFound {
                program: Program::Rbd
            }
        ));
    }

    #[tokio::test]
    async fn a_failure_keeps_command_status_and_error_output() {
        let (_dir, runner, call) = shell("echo no such image >&2; exit 2");
        let error = runner.run(&call.args(["info", "a b"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "ceph -c \"echo no such image >&2; exit 2\" ceph info \"a b\" ended with exit status 2: no such image"
        );
        assert!(matches!(
            error,
            CommandError::Failed {
                exit: Exit::Code(2),
                ..
            }
        ));

        let (_dir, runner, call) = shell("kill -TERM $$");
        let error = runner.run(&call).await.unwrap_err();
        assert!(matches!(
            error,
            CommandError::Failed {
                exit: Exit::Signal(15),
                ..
            }
        ));
    }

    // A `ceph` that waits for a dead monitor would hold a guest's start for ever, and its children would pile up.
    #[tokio::test]
    async fn at_the_deadline_the_whole_group_is_killed() {
        let (dir, runner, call) = shell(r#"echo waiting >&2; sleep 600 & echo $! > "$1"; wait"#);
        let child = dir.path().join("child");
        let mut call = call.arg(&child);
        call.deadline = Duration::from_millis(1500);
        let error = runner.run(&call).await.unwrap_err();
        assert!(
            matches!(&error, CommandError::TimedOut { stderr, .. } if stderr == "waiting\n"),
            "{error:?}"
        );
        let pid = std::fs::read_to_string(&child).unwrap();
        wait_until("the grandchild is gone", || !is_alive(&pid)).await;
    }

    // A caller that gives up (a round cancelled at shutdown) must not leave its program behind.
    #[tokio::test]
    async fn a_dropped_run_kills_its_group() {
        let (dir, runner, call) = shell(r#"sleep 600 & echo $! > "$1.new"; mv "$1.new" "$1"; wait"#);
        let child = dir.path().join("child");
        let call = call.arg(&child);
        {
            let run = pin!(runner.run(&call));
            let written = pin!(wait_until("the program has started", || child.exists()));
            assert!(matches!(select(run, written).await, Either::Right(_)));
        }
        let pid = std::fs::read_to_string(&child).unwrap();
        wait_until("the grandchild is gone", || !is_alive(&pid)).await;
    }

    // A program that starts a daemon exits at once, while the daemon keeps the pipe: the answer must not cost the
    // deadline, and the daemon lives on.
    #[tokio::test]
    async fn a_daemon_left_behind_does_not_cost_the_deadline() {
        let (_dir, runner, call) = shell("echo ready; setsid sleep 600 & echo $!");
        let started = HostClock.now();
        let output = runner.run(&call).await.unwrap();
        assert!(HostClock.now().since(started) < Duration::from_secs(10));
        let text = output.text();
        let (word, pid) = text.split_once('\n').unwrap();
        assert_eq!(word, "ready");
        assert!(is_alive(pid));
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn endless_output_is_cut_off() {
        let (_dir, runner, call) = shell("exec cat /dev/zero");
        let error = runner.run(&call.output_limit(100_000)).await.unwrap_err();
        assert!(
            matches!(error, CommandError::OutputTooLarge { limit: 100_000, .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn only_the_end_of_long_error_output_is_kept() {
        let (_dir, runner, call) = shell("head -c 100000 /dev/zero >&2; echo the end >&2");
        let output = runner.run(&call).await.unwrap();
        assert_eq!(output.stderr.len(), STDERR_KEPT);
        assert!(output.stderr.ends_with("the end\n"));
    }

    // Neither may a program that ignores a large input block its caller.
    #[tokio::test]
    async fn input_that_nobody_reads_is_dropped() {
        let (_dir, runner, call) = shell("exit 0");
        runner.run(&call.stdin(vec![b'x'; 1_000_000])).await.unwrap();
    }
}

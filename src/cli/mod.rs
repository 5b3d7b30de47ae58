//! The command line: a file a command.

mod bench;
mod bench_map;
mod bind;
mod compare;
mod demo;
mod demo_serve;
mod details;
mod nics;
mod port;
mod progress;
mod receive;
mod send;
mod serve;
mod table;
mod vm;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use pagewire::device::OpenError;
use serde::Serialize;
use vhost_user::VhostUserError;

/// Sends files straight from the page cache to the wire.
///
/// A user-space NIC driver whose descriptors point at the file's own pages: the CPU writes headers, the NIC reads the data.
#[derive(Parser)]
#[command(name = "pagewire", version, max_term_width = 110, after_help = "Try: pagewire demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(send::Send),
    Serve(serve::Serve),
    Receive(receive::Receive),
    Nics(nics::Nics),
    Bind(bind::Bind),
    Unbind(bind::Unbind),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Compare(compare::Compare),
    #[command(hide = true)]
    CompareGuest(compare::CompareGuest),
    Vm(vm::Vm),
}

/// A failure that is told in one sentence and the remedy.
type Failure = Box<dyn std::error::Error>;

/// How a command ended, when it could do its work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All of it.
    Done,
    /// Not all; the report says why.
    Failed,
    /// The user ended it.
    Interrupted,
    /// As a command that it ran.
    Code(u8),
}

/// Runs the command that the arguments name. 0: done; 1: failed; 2: the arguments are wrong; 130: interrupted.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What the libraries tell (an installation, a fallback) goes to the error stream, one line each.
    let filter = tracing_subscriber::EnvFilter::try_from_env("PAGEWIRE_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().with_target(false).with_level(false).init();
    let outcome = match cli.command {
        Command::Send(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Receive(command) => command.run(),
        Command::Nics(command) => command.run(),
        Command::Bind(command) => command.run(),
        Command::Unbind(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::CompareGuest(command) => command.run(),
        Command::Vm(command) => command.run(),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "pagewire: {failure}");
            if was_stopped(&*failure) { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether the user did not want to wait for a device any longer.
fn was_stopped(failure: &(dyn std::error::Error + 'static)) -> bool {
    match failure.downcast_ref() {
        Some(OpenError::VhostUser(VhostUserError::Stopped(_))) => true,
        Some(OpenError::Nic(error)) => error.is_stopped(),
        _ => false,
    }
}

/// A flag that Ctrl-C and SIGTERM set; a second one ends the program at once.
fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn interrupted(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// A capture into the file that is sent would destroy it.
fn refuse_capture_into(source: &Path, capture: Option<&Path>) -> Result<(), Failure> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match capture {
        Some(capture) if identity(capture).is_some_and(|capture| Some(capture) == identity(source)) => {
            Err(format!("the capture {} is the file that is to be sent; name another", capture.display()).into())
        }
        _ => Ok(()),
    }
}

/// Prints to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    Ok(print(&format!("{}\n", serde_json::to_string(value)?))?)
}

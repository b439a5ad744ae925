//! The binary `lethe`.

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

use lethe_host::commands::audit::Audit;
use lethe_host::commands::bench::Bench;
use lethe_host::commands::bundle::Bundle;
use lethe_host::commands::inspect::Inspect;
use lethe_host::commands::keys::Keys;
use lethe_host::commands::prepare::Prepare;
use lethe_host::commands::run::Run;
use lethe_host::commands::run_component::RunComponent;
use lethe_host::commands::serve::Serve;
use lethe_host::commands::verify::Verify;
use lethe_host::commands::verify_receipt::VerifyReceipt;
use lethe_host::commands::{CommandError, Outcome, in_time};
use lethe_host::settings::RunSettings;
use lethe_server::wipe_on_free::WipeOnFree;

#[global_allocator]
static ALLOCATOR: WipeOnFree = WipeOnFree::always();

/// Runs ONNX models on other people's data and forgets the data.
#[derive(Debug, Parser)]
#[command(name = "lethe", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: RunSettings,
    /// Print JSON for programs instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    RunComponent(RunComponent),
    Verify(Verify),
    Serve(Box<Serve>),
    Bundle(Bundle),
    Prepare(Prepare),
    Bench(Bench),
    Inspect(Inspect),
    Keys(Keys),
    Audit(Audit),
    VerifyReceipt(VerifyReceipt),
}

fn main() -> ExitCode {
    let Arguments {
        command,
        settings,
        json,
    } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let result = match command {
        Command::Run(run) => in_time(&settings, || run.run(&settings, json)),
        Command::RunComponent(component) => component.run(&settings),
        Command::Bench(bench) => in_time(&settings, || bench.run(&settings, json)),
        Command::Inspect(inspect) => in_time(&settings, || inspect.run(&settings, json)),
        Command::Keys(keys) => keys.run(json),
        Command::Audit(audit) => audit.run(json),
        Command::VerifyReceipt(verify) => in_time(&settings, || verify.run(&settings, json)),
        Command::Verify(verify) => in_time(&settings, || verify.run(&settings, json)),
        Command::Serve(serve) => serve.run(&settings),
        Command::Bundle(bundle) => bundle.run(&settings, json),
        Command::Prepare(prepare) => prepare.run(&settings, json),
    };
    match result {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Ok(Outcome::Exit(code)) => ExitCode::from(code),
        // Whoever reads the output has had enough of it.
        Err(CommandError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lethe: {}", error.to_string().replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

/// Prints the help that was asked for, or one line on what is wrong with the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nothing can be done where even this cannot be printed.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage"));
    let line: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    eprintln!("lethe: {}", line.join(" ").trim_start_matches("error: "));
    ExitCode::from(2)
}

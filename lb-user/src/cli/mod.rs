//! The command line.

mod check;
mod explain;
mod get;
mod output;
mod status;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
pub use output::Format;
use tokio::runtime;

use crate::{
    agent::{
        self, Options, SocketLb,
        options::{Forward, Mode},
        signals::FLUSH,
    },
    log,
    maps::Pins,
    system,
};

/// A load balancer for services on hosts whose pods, containers or VMs hang off a Linux bridge.
#[derive(Parser)]
#[command(name = "lb", version)]
pub struct Cli {
    /// Which of the host's instances
    #[arg(long, global = true, default_value = "default", value_parser = instance)]
    instance: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent in the foreground; what it sets up stays when it ends
    Run(Run),
    /// Is this config valid?
    Check {
        /// File or directory
        config: PathBuf,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// What would happen to a packet, and why? Decided from a config file, nothing is sent
    Explain(explain::Explain),
    /// Show services, backends, flows or ports
    Get(get::Get),
    /// Is all well? Programs, outcomes of packets, pressure of every map
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Leave the host as it was: programs, maps and files go
    Uninstall {
        /// Also the given addresses and the hash seed, which are otherwise kept
        #[arg(long)]
        all: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args)]
#[command(group(ArgGroup::new("devices").required(true).multiple(true)))]
struct Run {
    /// Bridge whose ports are served; may be given several times
    #[arg(long = "bridge", value_name = "BRIDGE", group = "devices")]
    bridges: Vec<String>,
    /// Port with a pod behind it that is no bridge's, by its name or a pattern such as 'cali*'; may be given several
    /// times. Pods are found by the host's routes
    #[arg(long = "port", value_name = "PATTERN", group = "devices")]
    ports: Vec<String>,
    /// Device that leads outside; may be given several times, and without any bridge
    #[arg(long = "uplink", value_name = "DEVICE", group = "devices")]
    uplinks: Vec<String>,
    /// Services: a file or a directory, YAML or JSON; read again when it changes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How translated packets travel on
    #[arg(long, value_enum, default_value_t = Forward::Auto)]
    forward: Forward,
    /// Service ports (per address family) that the maps can hold; fixed until `lb uninstall`
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    max_services: u32,
    /// Rows of each flow table, two per flow; fixed until `lb uninstall`
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1024..=1 << 26))]
    max_flows: u32,
    /// Whose sockets are translated when they connect; those of others are left alone
    #[arg(long, value_enum, default_value_t = SocketLb::Host)]
    socket_lb: SocketLb,
    /// Answer at the uplinks who looks by ARP or neighbour solicitations for load balancer and external IPs in an
    /// uplink's own subnet. For one node of a LAN: each that does says that they are its own
    #[arg(long, requires = "uplinks")]
    announce: bool,
    /// Run XDP at the uplinks, in the driver or, if asked for, in the host's stack
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "native", requires = "uplinks")]
    xdp: Option<Mode>,
    /// Attach by clsact filters also where the kernel has tcx links
    #[arg(long, hide = true)]
    clsact: bool,
}

impl Cli {
    /// Carries the command out. Errors are printed; the code is 1 for them, 2 for wrong usage.
    pub fn run() -> ExitCode {
        std::panic::set_hook(Box::new(|fault| {
            let what = fault.payload_as_str().unwrap_or("no word why");
            let place = fault.location().map_or_else(String::new, |place| format!(" ({place})"));
            output::error(&format!("this is a fault of lb, please report it: {what}{place}"));
        }));
        let code = Cli::parse().dispatch().unwrap_or_else(|error| {
            output::error(&format!("{error:#}{}", advice(&error)));
            ExitCode::FAILURE
        });
        log::flush(FLUSH);
        code
    }

    fn dispatch(self) -> Result<ExitCode> {
        let pins = Pins::new(&self.instance);
        match self.command {
            Command::Run(run) => {
                log::start()?;
                system::raise_open_files()?;
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.context("starting the agent's loop")?;
                let done = runtime.block_on(agent::run(run.options(self.instance)));
                // Not waiting for threads that read files.
                runtime.shutdown_background();
                done?;
            }
            Command::Check { config, output } => return check::check(&config, output),
            Command::Explain(explain) => return explain.run(),
            Command::Get(get) => get.run(&pins)?,
            Command::Status { output } => return status::status(&pins, output),
            Command::Uninstall { all, output } => {
                let agent::Uninstalled { removed, left } = agent::uninstall(&pins, all)?;
                output::print(output, &removed, || match removed.is_empty() && left.is_empty() {
                    true => {
                        let instance = &pins.instance;
                        format!("no instance {instance} is installed: nothing to remove\n")
                    }
                    false => removed.iter().map(|what| format!("{what} removed\n")).collect(),
                })?;
                left.iter().for_each(|what| output::error(&format!("not removed: {what}")));
                return Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "lb", &mut script);
                output::write(&script)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    fn options(self, instance: String) -> Options {
        Options {
            bridges: self.bridges,
            ports: self.ports,
            uplinks: self.uplinks,
            config: self.config,
            forward: self.forward,
            instance,
            max_services: self.max_services,
            max_flows: self.max_flows,
            clsact: self.clsact,
            socket_lb: self.socket_lb,
            announce: self.announce,
            xdp: self.xdp,
        }
    }
}

/// The name of an instance. It names directories, which `lb uninstall` removes.
fn instance(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err("use up to 64 letters, digits, '-', '_' and '.', the first not '.'".to_owned());
    }
    Ok(name.to_owned())
}

/// What to do about an error that may come from anywhere.
fn advice(error: &anyhow::Error) -> &'static str {
    let number = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error());
    match number {
        Some(libc::EMFILE) => "; allow more open files (`ulimit -n`, systemd: LimitNOFILE=)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_instance_stays_in_its_directory() {
        for name in ["default", "a.b", "lab-1_x"] {
            assert_eq!(instance(name).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", "../..", "a/b", "/", "a b", &"a".repeat(65)] {
            assert!(instance(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn run_needs_a_device_and_a_config() {
        assert!(Cli::try_parse_from(["lb", "run", "--config", "f"]).is_err());
        assert!(Cli::try_parse_from(["lb", "run", "--uplink", "u", "--config", "f"]).is_ok());
        assert!(Cli::try_parse_from(["lb", "run", "--bridge", "b"]).is_err());
        assert!(Cli::try_parse_from(["lb", "run", "--bridge", "b", "--config", "f", "--xdp"]).is_err());
        assert!(Cli::try_parse_from(["lb", "run", "--bridge", "b", "--config", "f", "--announce"]).is_err());
        let cli = Cli::try_parse_from(["lb", "run", "--bridge", "a", "--bridge", "b", "--config", "f"]);
        let Ok(Cli { command: Command::Run(run), instance }) = cli else { panic!("a valid command line") };
        let options = run.options(instance);
        assert_eq!(options.bridges, ["a", "b"]);
        assert_eq!((options.instance.as_str(), options.max_services), ("default", 16_384));
    }
}

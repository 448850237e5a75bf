//! What the scripts in `hack/` do badly in shell: images without an image tool, a PKI, the supervisor of a
//! local node and the one door from the host into it.

mod forward;
mod image;
mod init;
mod pki;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "pintle-hack", about = "Developer tools for local clusters")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pack files into an OCI image archive that `ctr images import` takes.
    Image(image::Options),
    /// Make certificates, keys and kubeconfigs in the layout of kubeadm.
    Pki(pki::Options),
    /// Run as PID 1 of a local node: start the services of a folder, restart what ends, reap.
    Init(init::Options),
    /// Forward a TCP port of the host's loopback into a network namespace.
    Forward(forward::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Image(options) => image::run(&options),
        Command::Pki(options) => pki::run(&options),
        Command::Init(options) => init::run(&options),
        Command::Forward(options) => forward::run(&options),
    }
}

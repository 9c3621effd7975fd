//! dms-listen: what tcpserver is to TCP, this is to AMQP.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_cli::main("dms-listen", dms_listen::listen)
}

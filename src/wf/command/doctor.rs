//! `wf doctor`: how the broker and the link to it are, and what to change.

use super::{Failure, Session, loader, prepared, print};
use crate::cli::{Command, DoctorArgs, Global, Output};
use crate::exit::Exit;
use work_factory::doctor::{Ended, Questions, Report, Verdict, examine, wrong_configuration};

pub(super) fn doctor(global: &Global, args: DoctorArgs) -> Result<Exit, Failure> {
    match loader(global).load() {
        Ok(_) => prepared(global, Command::Doctor(args)),
        // A finding like any other: whoever reads JSON gets JSON.
        Err(error) => tell(&wrong_configuration(&error), global.output).map(|_| Exit::Usage),
    }
}

pub(super) async fn examined(session: Session, args: DoctorArgs) -> Result<Exit, Failure> {
    let show = session.show();
    let DoctorArgs { only, monitor: monitors, no_rate, timeout, strict } = args;
    let questions = Questions { only, monitors, rate: !no_rate, within: timeout.into() };
    let report = examine(&session.loader, &session.loaded, &questions, show, &session.stop).await;
    tell(&report, session.output)?;
    let bad = if strict { Verdict::Warning } else { Verdict::Problem };
    Ok(match report.reached {
        Some(false) => Exit::Unreachable,
        _ if report.ended != Ended::Complete || report.verdict >= bad => Exit::Failed,
        _ => Exit::Done,
    })
}

fn tell(report: &Report, output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(report).map_err(|error| Failure::failed(error, Exit::Failed))?;
            print(&format!("{json}\n"))
        }
        Output::Table => print(&report.to_string()),
    }
}

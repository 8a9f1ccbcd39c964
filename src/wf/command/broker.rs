//! `wf broker`: looking after the broker.

use wf_nats::OnDifference;
use wf_schema::config::BrokerUrl;

use super::{Failure, Session, print};
use crate::cli::BrokerCommand;
use crate::exit::Exit;
use work_factory::connect::BrokerUnavailable;
use work_factory::settings;

pub(super) async fn broker(session: Session, command: BrokerCommand) -> Result<Exit, Failure> {
    let BrokerCommand::Setup { update } = command;
    let on_difference = if update { OnDifference::Update } else { OnDifference::Refuse };
    let config = session.config();
    let BrokerUrl::Nats(urls) = &config.broker().url else {
        let message = format!("{} needs no setup: it is made when it is first opened. Setup is for nats://", config.broker().url);
        return Err(Failure::usage(message, Exit::Usage));
    };
    let options = settings::nats(config, urls).map_err(BrokerUnavailable::from)?;
    let report = wf_nats::setup(&options, &settings::factory(config), on_difference).await.map_err(BrokerUnavailable::from)?;
    let rows = [("made", report.created), ("changed", report.updated), ("unchanged", report.unchanged)];
    let text = rows.iter().filter(|(_, names)| !names.is_empty()).map(|(did, names)| format!("{did:<10} {}\n", names.join(" ")));
    print(&text.collect::<String>())
}

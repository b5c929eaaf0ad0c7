//! What people, integrators and auditors call.

pub mod access;
pub mod badges;
pub mod commands;
pub mod devices;
pub mod disputes;
pub mod employees;
pub mod entering;
pub mod events;
pub mod explanations;
pub mod faces;
pub mod figures;
pub mod imports;
pub mod ledger;
pub mod notes;
pub mod persons;
pub mod photos;
pub mod privacy;
pub mod punches;
pub mod quarantine;
pub mod reviews;
pub mod rulings;
pub mod shifts;
pub mod sites;
pub mod staff;
pub mod timecards;
pub mod unknown_badges;
pub mod webhooks;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{door::admission::Class, state::App};

/// Every route that they call, and its class.
pub(crate) fn table() -> Vec<(Class, OpenApiRouter<App>)> {
    let routes = OpenApiRouter::new()
        .routes(routes!(punches::list, entering::enter))
        .routes(routes!(entering::preview))
        .routes(routes!(punches::one))
        .routes(routes!(punches::events))
        .routes(routes!(rulings::decide))
        .routes(routes!(rulings::preview))
        .routes(routes!(persons::assign))
        .routes(routes!(persons::preview))
        .routes(routes!(shifts::join, shifts::part))
        .routes(routes!(shifts::preview))
        .routes(routes!(unknown_badges::list))
        .routes(routes!(unknown_badges::assign))
        .routes(routes!(unknown_badges::preview))
        .routes(routes!(rulings::accept_many))
        .routes(routes!(reviews::list))
        .routes(routes!(reviews::counts))
        .routes(routes!(reviews::one))
        .routes(routes!(notes::one, notes::erase))
        .routes(routes!(explanations::of_punch))
        .routes(routes!(explanations::of_day))
        .routes(routes!(timecards::timeline))
        .routes(routes!(timecards::cards))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::one))
        .routes(routes!(quarantine::admit))
        .routes(routes!(quarantine::dismiss))
        .routes(routes!(disputes::list, disputes::open))
        .routes(routes!(disputes::one))
        .routes(routes!(disputes::answer))
        .routes(routes!(disputes::resolve))
        .routes(routes!(disputes::reopen))
        .routes(routes!(employees::list, staff::hire))
        .routes(routes!(employees::one))
        .routes(routes!(staff::rename))
        .routes(routes!(staff::set_pin, staff::take_pin))
        .routes(routes!(staff::depart, staff::cancel_departure))
        .routes(routes!(staff::come_back))
        .routes(routes!(staff::assign))
        .routes(routes!(badges::list, badges::issue))
        .routes(routes!(badges::end))
        .routes(routes!(imports::employees))
        .routes(routes!(imports::put_external))
        .routes(routes!(privacy::hold, privacy::lift))
        .routes(routes!(privacy::outlook, privacy::erase))
        .routes(routes!(privacy::export))
        .routes(routes!(sites::list, sites::add))
        .routes(routes!(sites::one))
        .routes(routes!(sites::change_policy))
        .routes(routes!(sites::change_zone))
        .routes(routes!(sites::preview_zone))
        .routes(routes!(sites::make_pairing_code))
        .routes(routes!(devices::list))
        .routes(routes!(devices::one))
        .routes(routes!(devices::revoke))
        .routes(routes!(devices::pins))
        .routes(routes!(devices::renew_pins))
        .routes(routes!(devices::assign))
        .routes(routes!(commands::list, commands::issue))
        .routes(routes!(commands::cancel))
        .routes(routes!(ledger::state))
        .routes(routes!(ledger::events))
        .routes(routes!(events::list))
        .routes(routes!(webhooks::list, webhooks::make))
        .routes(routes!(webhooks::one, webhooks::describe, webhooks::remove))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::delivery))
        .routes(routes!(webhooks::redeliver_one))
        .routes(routes!(webhooks::redeliver, webhooks::redeliveries))
        .routes(routes!(figures::list))
        .routes(routes!(faces::one))
        .routes(routes!(faces::consent, faces::withdraw))
        .routes(routes!(faces::enrol, faces::remove))
        .routes(routes!(faces::make_code))
        .routes(routes!(faces::head_covering))
        .routes(routes!(faces::erase))
        .routes(routes!(photos::one))
        .routes(routes!(photos::looked));
    let mut table = access::table();
    table.push((Class::Interactive, routes));
    table
}

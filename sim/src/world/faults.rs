//! What goes wrong.

use std::time::Duration;

use super::{Happening, Phase, World};
use crate::engine::Life;
use crate::network::{Channel, Peer};
use crate::parameters::{Fault, Kind};
use crate::part::PartName;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    /// Something goes wrong, and the next thing is planned.
    pub(super) fn fault(&mut self) {
        if self.phase != Phase::Busy {
            return;
        }
        if let Some(fault) = self.dice.faults.weighted(&self.parameters.fault_weights) {
            self.log.note(self.clock.instant(), format_args!("fault: {fault:?}"));
            if self.inflict(fault) {
                self.faults += 1;
                *self.coverage.faults.entry(fault).or_default() += 1;
            }
        }
        let pause = self.dice.faults.around(self.parameters.fault_pause);
        self.clock.after(pause.max(ms(1)), Happening::Fault);
    }

    /// Returns whether it hit anything.
    fn inflict(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::KillTold | Fault::KillSilent => {
                let Some(number) = self.victim(|life| life != Life::Gone) else { return false };
                self.kill_engine(number, fault == Fault::KillTold);
                if self.dice.faults.percent(self.parameters.rejoin_percent) {
                    let after = self.dice.faults.around(ms(1500));
                    self.clock.after(after, Happening::Start(self.engines[number as usize].kind));
                }
            }
            Fault::Leave => {
                let Some(number) = self.victim(|life| life == Life::Runs) else { return false };
                self.stop_engine(number);
            }
            Fault::Freeze => {
                let Some(number) = self.victim(|life| life == Life::Runs) else { return false };
                self.freeze_engine(number);
                // Short, about as long as the grace time, or long enough for its heart to be missed.
                let long = self.parameters.detection() + self.parameters.grace;
                let most = *self.dice.faults.pick(&[ms(100), ms(1000), long, long * 2]);
                let time = self.dice.faults.duration(ms(1), most);
                self.clock.after(time, Happening::Thaw(number));
            }
            Fault::Slow => {
                let Some(number) = self.victim(|life| life == Life::Runs) else { return false };
                self.engines[number as usize].slowness = *self.dice.faults.pick(&[2, 10, 50]);
                let time = self.dice.faults.around(ms(2000));
                self.clock.after(time, Happening::Quicken(number));
            }
            Fault::Join => {
                let kind = self.dice.faults.weighted(&self.parameters.kinds).unwrap_or(Kind::Stock);
                if !self.has_room() {
                    return false;
                }
                self.start_engine(kind, None);
            }
            Fault::LateNews => {
                let client = u32::try_from(self.dice.faults.index(self.clients.len())).unwrap_or(0);
                let lag = self.dice.faults.around(ms(2000));
                self.network.lag(Peer::Client(client), Channel::Notification, lag);
                self.clock.after(lag + ms(500), Happening::FreshNews(client));
            }
            Fault::HubLag | Fault::TaskLag | Fault::StoreLag => {
                let name = match fault {
                    Fault::HubLag => PartName::Hub,
                    Fault::TaskLag => PartName::Task,
                    _ => PartName::Store,
                };
                let time = self.dice.faults.around(ms(1000));
                self.stall(name, time);
            }
            Fault::ClockStep => {
                let hours = self.dice.faults.between(0, 48);
                self.clock.step((i64::try_from(hours).unwrap_or(0) - 24) * 3_600_000_000);
            }
            Fault::Return => {
                // The last one by a uuid only: the ROUTERs know no others.
                let gone = self.engines_that(|engine| engine.life == Life::Gone);
                let last: Vec<_> =
                    gone.into_iter().filter(|number| self.number_of(self.uuid_of(*number)) == Some(*number)).collect();
                if last.is_empty() {
                    return false;
                }
                let number = *self.dice.faults.pick(&last);
                let (kind, uuid) = (self.engines[number as usize].kind, self.uuid_of(number).clone());
                self.start_engine(kind, Some(&uuid));
            }
            Fault::ClientGoes => {
                // The first one stays, to ask the hub in the end.
                let client = u32::try_from(self.dice.faults.index(self.clients.len())).unwrap_or(0);
                if client == 0 || self.clients[client as usize].is_gone {
                    return false;
                }
                self.client_goes(client);
            }
            Fault::ControllerStops => {
                let patience = self.parameters.heart_period * (self.parameters.max_misses + 1);
                let most = *self.dice.faults.pick(&[ms(50), self.parameters.heart_period, patience * 2, patience * 4]);
                let time = self.dice.faults.duration(ms(1), most);
                if time > patience {
                    self.coverage.add("controller stood still longer than hearts may be silent", 1);
                }
                self.stop_controller(time);
            }
            Fault::Burst => {
                let most = *self.dice.faults.pick(&[3, 10, 30]);
                for client in 0..self.parameters.clients {
                    let tasks = self.dice.faults.between(2, most);
                    self.burst(client, tasks);
                }
            }
            Fault::Storm => {
                for _ in 0..self.dice.faults.between(2, 8) {
                    let kind = self.dice.faults.weighted(&self.parameters.kinds).unwrap_or(Kind::Stock);
                    if !self.has_room() {
                        return false;
                    }
                    self.start_engine(kind, None);
                }
            }
            Fault::Deaf => {
                let client = u32::try_from(self.dice.faults.index(self.clients.len())).unwrap_or(0);
                if self.clients[client as usize].is_deaf {
                    return false;
                }
                self.clients[client as usize].is_deaf = true;
                let time = self.dice.faults.around(ms(5000));
                self.clock.after(time, Happening::Reads(client));
            }
            Fault::ClientReconnects => {
                let client = u32::try_from(self.dice.faults.index(self.clients.len())).unwrap_or(0);
                return self.client_reconnects(client);
            }
            Fault::HeartReconnects => {
                let Some(number) = self.victim(|life| life == Life::Runs) else { return false };
                return self.heart_reconnects(number);
            }
            Fault::ControllerDies => return self.controller_dies(),
            Fault::StrayReply => {
                let Some(number) = self.victim(|life| life == Life::Runs) else { return false };
                let again = self.dice.faults.percent(50);
                return self.stray_reply(number, again);
            }
        }
        true
    }

    /// Whether there are fewer engines than there may be.
    fn has_room(&self) -> bool {
        self.engines_that(|engine| engine.life != Life::Gone).len() < self.parameters.max_engines
    }

    /// An engine whose life is like this.
    fn victim(&mut self, test: impl Fn(Life) -> bool) -> Option<u32> {
        let numbers = self.engines_that(|engine| test(engine.life));
        if numbers.is_empty() { None } else { Some(*self.dice.faults.pick(&numbers)) }
    }
}

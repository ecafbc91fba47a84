//! The board's cores as the engine's pool.

use embodios::Pool;
use embodios_bsp::cpu::cores::Team;
use embodios_bsp::cpu::pmu::keep_count;

/// All cores.
pub struct Cores(pub &'static Team);

impl Pool for Cores {
    fn width(&self) -> usize {
        self.0.width()
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.0.run(&|worker| {
            job(worker);
            keep_count();
        });
    }
    fn beside(&self, here: &mut dyn FnMut(), job: &(dyn Fn(usize) + Sync)) {
        self.0.run_beside(here, &|worker| {
            job(worker);
            keep_count();
        });
    }
}

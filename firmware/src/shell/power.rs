//! reboot, off, fault: ways to leave.

use super::Shell;

/// `reboot`.
pub fn reboot(shell: &mut Shell, _: &str) {
    shell.say("Restarting.");
    shell.leaving = true;
    shell.platform.reboot();
}

/// `off`.
pub fn off(shell: &mut Shell, _: &str) {
    shell.say("Good bye.");
    shell.console.close();
    shell.leaving = true;
    shell.platform.exit(0);
    shell.platform.power_off();
}

/// `fault KIND`: a test of the exception handlers, on every core that can have one.
pub fn fault(shell: &mut Shell, kind: &str) {
    if let Err(why) = shell.platform.provoke(kind) {
        shell.say(why);
    }
}

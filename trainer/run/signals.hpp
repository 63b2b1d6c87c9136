// Asked to stop: by SIGINT, SIGTERM, SIGUSR1 or SIGHUP, at any time. The work in hand goes on to its next safe point,
// and what is new is saved.
//
// Launchers and batch systems say the same twice, and then in other words: Slurm USR1 before the time limit and TERM at
// it, to mpirun too, which hands it on. So the same signal within five seconds, and any other one, is the same wish. The
// same one again after that is somebody who does not want to wait: the process ends at once.
#pragma once

#include <cstdint>

namespace muster {

// Installs the handlers; a program has one process-wide place for them, so this is called once, by main's command.
// SIGINT and SIGHUP stay ignored where they were (nohup). A closed output is no reason to end either: SIGPIPE is ignored.
void watch_stop_signals();
bool stop_requested();

// For what is said when a signal comes: whether this rank speaks for all, and how many steps an end at once would lose.
void speak_of_stop_signals(bool speaks);
void set_unsaved_steps(std::int64_t steps);

}  // namespace muster

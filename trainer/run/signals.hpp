// Asked to stop: SIGTERM and SIGUSR1 let the step under way end and a checkpoint be written; a second one
// ends at once.
#pragma once

namespace muster {

// Installs the handlers; a program has one process-wide place for them, so this is called once, by main's
// command.
void watch_stop_signals();
bool stop_requested();

}  // namespace muster

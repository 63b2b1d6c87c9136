// What a run says of itself before its first step and after its last; what it says of each step is in loop/step_report.hpp.
#pragma once

#include "data/loader.hpp"
#include "trainer/loop/run_host.hpp"
#include "trainer/loop/training_loop.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/run/run_data.hpp"
#include "trainer/run/run_terms.hpp"
#include "trainer/run_folder.hpp"

namespace muster {

// Collective: the log of this rank, which the watchdog writes to as well.
Log open_log(const RunHost& host, const RunFolder& folder);

void tell_start(const Log& log, const RunTerms& terms, const RunHost& host, const Attempt& attempt);
// On rank 0: what is read, and how often.
void tell_data(const Log& log, const Config& config, const RunData& data, const Loader& loader);
void tell_end(const Log& log, const RunTerms& terms, const RunHost& host, const Loader& loader,
              const LoopResult& result);

}  // namespace muster
